# 0: this is no upgrade.
if [ "$1" = 0 ]; then
    systemctl --no-reload disable pingferry.service pingferry-edge.service pingferry-connect.service || :
    [ ! -d /run/systemd/system ] || systemctl stop 'pingferry.service' 'pingferry@*' pingferry-edge pingferry-connect || :
fi
