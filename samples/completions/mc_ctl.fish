# fish: /usr/share/fish/vendor_completions.d/mc_ctl.fish
mc_ctl completions fish 2>/dev/null | source
