#!/usr/bin/env python3
"""Runs `pingferry exec` in a network of namespaces and draws what it prints as an SVG.

    cargo build --release
    docs/terminal.py target/release/pingferry > docs/terminal.svg

It needs no root, and no packet leaves the namespaces:

    command -- ping0 -- pingferry -- router -- router -- host
                        192.0.2.2    192.0.2.1  198.51.100.2  203.0.113.9

Requirements: Python 3.9, `unshare` and `nsenter` (util-linux), `ip` (iproute2), `ping` (iputils) and `mtr`.
"""

import os
import subprocess
import sys
from html import escape

HOST = "203.0.113.9"
COMMANDS = [f"ping -c 3 {HOST}", f"mtr --report --no-dns --report-cycles 5 {HOST}"]

FONT_SIZE = 14
# A monospaced character is 0.6 em wide in the fonts of the style below.
CHARACTER_WIDTH = 0.6 * FONT_SIZE
LINE_HEIGHT = 20
MARGIN = 20
TITLE_BAR = 34

STYLE = """
    .window { fill: #161b22; stroke: #484f58 }
    text { font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre }
    .output { fill: #c9d1d9 }
    .command { fill: #ffffff; font-weight: bold }
    .prompt { fill: #3fb950; font-weight: bold }"""


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: terminal.py PINGFERRY")
    pingferry = os.path.abspath(sys.argv[1])
    if "PINGFERRY_TERMINAL" not in os.environ:
        # Again, as root of new namespaces. All processes in them end with the first one.
        os.environ["PINGFERRY_TERMINAL"] = "1"
        namespaces = ["--user", "--map-root-user", "--net", "--uts", "--pid", "--mount-proc", "--kill-child"]
        os.execvp("unshare", ["unshare", *namespaces, sys.executable, os.path.abspath(__file__), pingferry])
    build_network()
    lines = []
    for command in COMMANDS:
        lines += [f"$ pingferry exec -- {command}", *run(pingferry, command), ""]
    print(svg(lines[:-1]))


def build_network():
    """The program's own namespace is the one of pingferry."""
    sh("hostname client")
    sh("ip link set lo up")
    with open("/proc/sys/net/ipv4/ping_group_range", "w") as file:
        file.write("0 0")
    routers = [namespace(), namespace()]
    host = namespace()
    link(None, "192.0.2.2/24", routers[0], "192.0.2.1/24")
    link(routers[0], "198.51.100.1/24", routers[1], "198.51.100.2/24")
    link(routers[1], "203.0.113.1/24", host, f"{HOST}/24")
    for place, gateway in [(None, "192.0.2.1"), (routers[0], "198.51.100.2"), (host, "203.0.113.1")]:
        sh(f"ip route add default via {gateway}", place)
    sh("ip route add 192.0.2.0/24 via 198.51.100.1", routers[1])
    for router in routers:
        sh("echo 1 > /proc/sys/net/ipv4/ip_forward", router)


def namespace():
    """A new network namespace, named by the process that keeps it."""
    process = subprocess.Popen(["unshare", "--net", "sh", "-c", "echo; exec sleep 60"], stdout=subprocess.PIPE)
    # The line says that the namespace exists.
    process.stdout.readline()
    return process.pid


def link(one, one_address, other, other_address):
    """Connects two namespaces. `None` is the program's own."""
    # Both ends are named by their network. It is another one for each link.
    name = "to-" + one_address.split(".")[0]
    sh(f"ip link add {name} type veth peer name {name} netns {other or os.getpid()}", one)
    for place, address in [(one, one_address), (other, other_address)]:
        sh("ip link set lo up", place)
        sh(f"ip address add {address} dev {name}", place)
        sh(f"ip link set {name} up", place)


def sh(command, place=None):
    enter = ["nsenter", "--net", "--target", str(place)] if place else []
    subprocess.run([*enter, "sh", "-c", command], check=True)


def run(pingferry, command):
    """The lines that a command prints."""
    args = [pingferry, "exec", "--", *command.split()]
    output = subprocess.run(args, check=True, stdout=subprocess.PIPE, text=True).stdout
    # mtr prints the date first.
    return [line.rstrip() for line in output.rstrip("\n").split("\n") if not line.startswith("Start: ")]


def svg(lines):
    width = round(max(map(len, lines)) * CHARACTER_WIDTH) + 2 * MARGIN
    height = TITLE_BAR + len(lines) * LINE_HEIGHT + MARGIN
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}">',
        f"  <title>{escape(' and '.join(line[2:] for line in lines if line.startswith('$ ')))}</title>",
        f"  <style>{STYLE}\n  </style>",
        f'  <rect class="window" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="8"/>',
    ]
    for number, color in enumerate(["#ff5f57", "#febc2e", "#28c840"]):
        out.append(f'  <circle cx="{MARGIN + 18 * number}" cy="18" r="5.5" fill="{color}"/>')
    for number, line in enumerate(lines):
        y = TITLE_BAR + (number + 0.8) * LINE_HEIGHT
        if line.startswith("$ "):
            text = f'<tspan class="prompt">$</tspan><tspan class="command">{escape(line[1:])}</tspan>'
        else:
            text = f'<tspan class="output">{escape(line)}</tspan>'
        if line:
            out.append(f'  <text x="{MARGIN}" y="{y:g}" xml:space="preserve">{text}</text>')
    return "\n".join([*out, "</svg>"])


if __name__ == "__main__":
    main()
