# 1 or more: this is an upgrade, which restarts what runs.
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    [ "$1" = 0 ] || systemctl try-restart pingferry.service 'pingferry@*' pingferry-edge.service pingferry-connect.service || :
fi
