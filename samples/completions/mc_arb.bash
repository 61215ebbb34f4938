# bash: /usr/share/bash-completion/completions/mc_arb
eval "$(mc_arb completions bash 2>/dev/null)"
