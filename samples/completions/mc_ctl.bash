# bash: /usr/share/bash-completion/completions/mc_ctl
eval "$(mc_ctl completions bash 2>/dev/null)"
