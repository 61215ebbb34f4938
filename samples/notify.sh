#!/bin/sh
# Sends a notification of a change to syslog, and, if they are set below, by mail and to a web address. To use it for one or
# more of the three commands:
#
#   install -m 755 samples/notify.sh /usr/local/lib/mc/notify.sh
#
# and in ID.conf:   post_switch_command = '/usr/local/lib/mc/notify.sh'
#                   pre_detach_command = '/usr/local/lib/mc/notify.sh'
#                   post_attach_command = '/usr/local/lib/mc/notify.sh'
#
# To combine it with another script, call it from that script:   /usr/local/lib/mc/notify.sh "$@" || :
#
# Arguments: NEW_PRIMARY primarycenter (post_switch_command) or CALLER primary|standby STANDBY primarycenter (the others).
# Environment: MC_COMMAND, MC_TERM, MC_REASON. When the pair becomes mirrored or disconnected, both servers send a notification.
#
# Each method has a time limit, so that none delays the next; their sum is below status_change_command_timeout (20 s).
# Exit status 0: at least one method succeeded.
set -u

mail_to=                                # dba@example.com
mailer='/usr/sbin/sendmail -t'          # any program that reads a message with its headers
url=                                    # https://chat.example.com/hooks/... ; receives {"text": "..."} by POST
priority=local0.notice
PATH=/usr/sbin:/usr/bin:/sbin:/bin

case ${MC_COMMAND:-} in
    post_switch_command) what="$1 is now the primary" ;;
    pre_detach_command) what="standby $3 is being disconnected, reported by $1 ($2)" ;;
    post_attach_command) what="mirrored with standby $3, reported by $1 ($2)" ;;
    *) echo "MC_COMMAND is \"${MC_COMMAND:-}\": this is a command of mc_hooks(5)"; exit 2 ;;
esac
text="mirroring: $what; term ${MC_TERM:-}: ${MC_REASON:-}"

worked=1
tried() { # method exit-status
    if [ "$2" -eq 0 ]; then worked=0; else echo "could not notify by $1 (exit status $2)"; fi
}

timeout 3 logger -t mc-notify -p "$priority" -- "$text"
tried syslog $?

if [ -n "$url" ]; then
    json=$(printf '%s' "$text" | tr -d '\000-\037' | sed 's/[\\"]/\\&/g')
    timeout 7 curl -fsS --max-time 6 -H 'Content-Type: application/json' -d "{\"text\": \"$json\"}" -o /dev/null "$url"
    tried "$url" $?
fi

if [ -n "$mail_to" ]; then
    # shellcheck disable=SC2086 # a program and its arguments
    printf 'To: %s\nSubject: %s\n\n%s\n' "$mail_to" "mirroring: $what" "$text" | timeout 7 $mailer
    tried mail $?
fi
exit "$worked"
