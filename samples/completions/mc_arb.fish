# fish: /usr/share/fish/vendor_completions.d/mc_arb.fish
mc_arb completions fish 2>/dev/null | source
