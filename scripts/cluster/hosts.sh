# Two hosts on one machine: network namespaces joined by a virtual cable. Sourced by the other scripts; needs root.
#
#   make_hosts          sets up tl-a (10.77.0.1) and tl-b (10.77.0.2), which see nothing but each other
#   on_host a COMMAND   runs a command on host tl-a
#   cut_cable, mend_cable, slow_cable, usual_cable, power_off b
#   remove_hosts        ends their processes and removes them

make_hosts() {
    remove_hosts
    ip netns add tl-a
    ip netns add tl-b
    ip link add veth-a netns tl-a type veth peer name veth-b netns tl-b
    ip -n tl-a address add 10.77.0.1/24 dev veth-a
    ip -n tl-b address add 10.77.0.2/24 dev veth-b
    for host in a b; do
        ip -n tl-$host link set lo up
        ip -n tl-$host link set veth-$host up
        # `ip netns exec` shows this file as /etc/hosts.
        mkdir -p /etc/netns/tl-$host
        printf '127.0.0.1 localhost\n10.77.0.1 tl-a\n10.77.0.2 tl-b\n' >/etc/netns/tl-$host/hosts
        # A peer that no longer answers is given up after about 25 seconds instead of 15 minutes.
        ip netns exec tl-$host sysctl -qw net.ipv4.tcp_retries2="${TCP_RETRIES:-8}"
    done
}

on_host() {
    local host=$1
    shift
    ip netns exec "tl-$host" unshare --uts sh -c "hostname tl-$host; exec \"\$@\"" sh "$@"
}

cut_cable() { ip -n tl-a link set veth-a down; }

mend_cable() { ip -n tl-a link set veth-a up; }

slow_cable() {
    local host said=""
    for host in a b; do
        if tc -n tl-$host qdisc replace dev veth-$host root netem delay 20ms rate 10mbit 2>/dev/null; then
            said="20 ms each way, 10 Mbit/s"
        else # This kernel has no netem.
            tc -n tl-$host qdisc replace dev veth-$host root tbf rate 1mbit burst 3kb latency 400ms
            said="1 Mbit/s"
        fi
    done
    echo "$said"
}

usual_cable() { for host in a b; do tc -n tl-$host qdisc delete dev veth-$host root; done; }

power_off() {
    # The cable first: a host without power says no farewell.
    cut_cable
    ip netns pids "tl-$1" | xargs -r kill -KILL
}

remove_hosts() {
    for host in a b; do
        if ip netns pids tl-$host >/dev/null 2>&1; then
            ip netns pids tl-$host | xargs -r kill -KILL
            ip netns delete tl-$host
        fi
        rm -rf /etc/netns/tl-$host
    done
}
