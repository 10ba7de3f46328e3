/**
 * Captures what `ip`, `bridge`, `ethtool` and `wg` send to this kernel, and what it answers, into test/vectors/netlink/: one
 * file a command. Run as root, with iproute2, ethtool and strace: `node scripts/capture-vectors.ts`; on a kernel with
 * WireGuard, and with wireguard-tools, for what `wg` sends: `node scripts/capture-vectors.ts wireguard`.
 *
 * The first line of a file is the command; then a line for each netlink message, `>` sent or `<` received, in hex
 * with its header. Links get the same indexes on every run, so a new capture differs in times and counters only.
 */

import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as delay } from 'node:timers/promises'
import { splitMessages } from '../src/netlink/message.ts'
import { RTM_GETLINK } from '../src/netlink/rtnetlink.ts'

const NETNS = 'twc'
const OUTPUT = new URL('../test/vectors/netlink/', import.meta.url)

/** In this order: each finds what those before it made. */
const COMMANDS = {
  'link-set-loopback-up': 'ip link set dev lo up',
  'link-add-veth':
    'ip link add eth0 index 10 address 02:00:00:00:00:01 type veth peer name eth1 index 11 address 02:00:00:00:00:02',
  'link-set-up': 'ip link set dev eth0 up',
  'link-set-peer-up': 'ip link set dev eth1 up',
  'link-add-bridge':
    'ip link add docker0 index 12 type bridge forward_delay 200 ageing_time 6000 stp_state 0 mcast_snooping 0',
  'link-set-master': 'ip link set dev eth1 master docker0',
  'address-add': 'ip address add 192.168.1.10/24 broadcast 192.168.1.255 dev eth0',
  'address-add-ipv6': 'ip address add fd00:1::10/64 dev eth0 nodad',
  'link-add-vxlan':
    'ip link add flannel.1 index 20 address 02:00:00:00:01:10 mtu 1450 txqueuelen 0 type vxlan id 1 local 192.168.1.10 dev eth0 dstport 8472 nolearning',
  'link-add-vxlan-all':
    'ip link add vxlan7 index 21 address 02:00:00:00:07:10 type vxlan id 7 group ff05::7 local fd00:1::10 dev eth0 dstport 4789 srcport 10000 20000 ttl 9 tos 4 ageing 60 maxaddress 100 learning proxy rsc l2miss l3miss udpcsum udp6zerocsumtx udp6zerocsumrx gbp',
  'link-set-vxlan-up': 'ip link set dev flannel.1 up',
  'ethtool-features-show': 'ethtool -k flannel.1',
  'ethtool-features-off': 'ethtool -K flannel.1 tx-checksum-ip-generic off',
  // What it cannot do now.
  'ethtool-features-refused': 'ethtool -K flannel.1 tx-tcp-segmentation on',
  'ethtool-features-monitor': 'ethtool --monitor -K flannel.1',
  'address-add-vxlan': 'ip address add 10.10.10.0/32 dev flannel.1 noprefixroute',
  'link-show-vxlan': 'ip -details link show dev flannel.1',
  'link-show-vxlan-all': 'ip -details link show dev vxlan7',
  'link-show-bridge': 'ip -details link show dev docker0',
  'link-show-port': 'ip -details link show dev eth1',
  'link-show': 'ip link show',
  'address-show': 'ip -4 address show dev eth0',
  'address-show-ipv6': 'ip -6 address show dev eth0',
  'neighbour-replace':
    'ip neighbour replace 10.10.11.0 lladdr 02:00:00:00:01:11 dev flannel.1 nud permanent protocol 84',
  'neighbour-replace-ipv6':
    'ip neighbour replace fd00:10::1 lladdr 02:00:00:00:01:11 dev flannel.1 nud reachable extern_learn router',
  'neighbour-replace-managed': 'ip neighbour replace 192.168.1.11 dev eth0 managed',
  'neighbour-show': 'ip neighbour show dev flannel.1',
  'fdb-replace': 'bridge fdb replace 02:00:00:00:01:11 dev flannel.1 dst 192.168.1.11 self permanent',
  'fdb-append':
    'bridge fdb append 00:00:00:00:00:00 dev flannel.1 dst 192.168.1.12 port 4789 vni 5 via eth0 self permanent',
  'fdb-add-ipv6': 'bridge fdb add 02:00:00:00:07:11 dev vxlan7 dst fd00:1::11 self permanent',
  'fdb-add-bridge': 'bridge fdb add 02:00:00:00:02:22 dev eth1 master static',
  'fdb-show': 'bridge fdb show dev flannel.1',
  'fdb-show-port': 'bridge fdb show dev eth1',
  'nexthop-replace': 'ip nexthop replace id 100 via 10.10.11.0 dev flannel.1 onlink protocol 84',
  'nexthop-add-ipv6': 'ip nexthop add id 101 via fd00:1::11 dev eth0',
  'nexthop-add-blackhole': 'ip nexthop add id 102 blackhole',
  'nexthop-add-fdb': 'ip nexthop add id 103 via 192.168.1.11 fdb',
  'nexthop-add-second': 'ip nexthop add id 104 via 192.168.1.12 dev eth0',
  'nexthop-add-group': 'ip nexthop add id 105 group 100,3/104',
  'nexthop-show': 'ip nexthop show',
  'nexthop-show-dev': 'ip nexthop show dev flannel.1',
  'route-replace-nexthop': 'ip route replace 10.10.11.0/24 nhid 100 protocol 84',
  'route-replace-gateway': 'ip route replace 10.10.12.0/24 via 10.10.12.0 dev flannel.1 onlink protocol boot',
  'route-add-table':
    'ip route add default via 192.168.1.1 dev eth0 src 192.168.1.10 table 1000 metric 7 protocol 84',
  'route-add-multipath':
    'ip route add 10.20.0.0/16 nexthop via 192.168.1.11 nexthop via 192.168.1.12 weight 3',
  'route-add-blackhole': 'ip route add blackhole 10.30.0.0/16 metric 5',
  'route-add-ipv6': 'ip route add fd00:20::/64 via fd00:1::11 dev eth0 onlink metric 30',
  'route-show': 'ip -4 route show table main',
  'route-show-table': 'ip -4 route show table 1000',
  'route-show-ipv6': 'ip -6 route show dev eth0',
  'route-get': 'ip route get 192.168.1.11',
  'neighbour-table-change': 'ip ntable change name arp_cache dev flannel.1 app_probes 3',
  'neighbour-table-show': 'ip ntable show dev flannel.1 name arp_cache',
  'route-add-l3-miss': 'ip route add 10.99.0.0/16 dev flannel.1 src 192.168.1.10',
  'monitor-l3-miss': 'ip monitor neigh',
  'route-delete': 'ip route del 10.10.12.0/24 via 10.10.12.0 dev flannel.1 metric 0',
  'nexthop-delete': 'ip nexthop del id 105',
  'fdb-delete': 'bridge fdb del 02:00:00:00:01:11 dev flannel.1 dst 192.168.1.11 self',
  'neighbour-delete': 'ip neighbour del 10.10.11.0 dev flannel.1',
  'address-delete': 'ip address del 10.10.10.0/32 dev flannel.1',
  'error-exists': 'ip link add flannel.1 type vxlan id 9 dstport 8472',
  'error-extended': 'ip link add vxlan8 type vxlan id 1 local 192.168.1.10 dev eth0 dstport 8472',
  'link-delete': 'ip link del dev flannel.1',
  // To where it is already.
  'link-set-namespace': 'ip link set dev eth0 netns twc',
  'fdb-add-vlan': 'bridge fdb add 02:00:00:00:02:33 dev eth1 master static vlan 5',
  'link-add-vxlan-proxy': 'ip link add vxlan31 type vxlan id 31 dstport 4789 proxy',
  'link-add-vxlan-rsc': 'ip link add vxlan32 type vxlan id 32 dstport 4789 rsc',
  'link-add-vxlan-l2miss': 'ip link add vxlan33 type vxlan id 33 dstport 4789 l2miss',
  'link-add-vxlan-l3miss': 'ip link add vxlan34 type vxlan id 34 dstport 4789 l3miss',
  'link-add-vxlan-udpcsum': 'ip link add vxlan35 type vxlan id 35 dstport 4789 udpcsum',
  'link-add-vxlan-zerocsum-tx': 'ip link add vxlan36 type vxlan id 36 dstport 4789 udp6zerocsumtx',
  'link-add-vxlan-zerocsum-rx': 'ip link add vxlan37 type vxlan id 37 dstport 4789 udp6zerocsumrx',
} as const

const [ONE, TWO] = [
  'a2tra2tra2tra2tra2tra2tra2tra2tra2tra2trazE=',
  'a2tra2tra2tra2tra2tra2tra2tra2tra2tra2trazI=',
]

const WIREGUARD_COMMANDS = {
  'wireguard-link-add': 'ip link add wg0 index 30 type wireguard',
  'wireguard-set': `wg set wg0 private-key private.key listen-port 51820 fwmark 0x100 peer ${ONE} preshared-key preshared.key endpoint 192.168.1.11:51820 persistent-keepalive 25 allowed-ips 10.10.11.0/24,fd00:10::/64 peer ${TWO} endpoint [fe80::12%1]:65535`,
  'wireguard-show': 'wg show wg0 dump',
  'wireguard-set-configuration': 'wg setconf wg0 wg0.conf',
  'wireguard-set-removed': `wg set wg0 peer ${TWO} remove`,
  'wireguard-show-unknown': 'wg show lo dump',
} as const

/** What these read, in the folder where they run. The private key is such as the kernel leaves it. */
const WIREGUARD_FILES = {
  'private.key': Buffer.alloc(32, 0x40).toString('base64'),
  'preshared.key': Buffer.alloc(32, 7).toString('base64'),
  'wg0.conf': `[Interface]\nListenPort = 51821\n\n[Peer]\nPublicKey = ${TWO}\nAllowedIPs = 10.10.12.0/24\n`,
}

/** Those that the kernel refuses; `fdb-add-vlan` for want of VLAN filtering. */
const REFUSED = new Set([
  'error-exists',
  'error-extended',
  'fdb-add-vlan',
  'ethtool-features-refused',
  'wireguard-show-unknown',
])

/** What provokes the events that a command waits for. */
const PROVOCATIONS: Readonly<Record<string, readonly string[]>> = {
  'ethtool-features-monitor': ['ethtool', '-K', 'flannel.1', 'tx-checksum-ip-generic', 'on'],
  'monitor-l3-miss': ['bash', '-c', 'echo >/dev/udp/10.99.0.1/9'],
}

async function main(): Promise<void> {
  const folder = mkdtempSync(`${tmpdir()}/${NETNS}-`)
  const commands = process.argv.includes('wireguard') ? WIREGUARD_COMMANDS : COMMANDS
  for (const [name, text] of Object.entries(WIREGUARD_FILES)) writeFileSync(`${folder}/${name}`, `${text}\n`)
  run('ip', 'netns', 'add', NETNS)
  try {
    for (const [name, command] of Object.entries(commands)) {
      console.log(name)
      const trace = `${folder}/${name}`
      const code = await capture(command, folder, trace, PROVOCATIONS[name])
      const failed = code !== 0 && PROVOCATIONS[name] === undefined
      if (failed !== REFUSED.has(name)) throw new Error(`${command}: exit code ${code}`)
      const lines = [`# ${command}`, ...messages(readFileSync(trace, 'utf8'), command)]
      writeFileSync(new URL(`${name}.txt`, OUTPUT), `${lines.join('\n')}\n`)
    }
  } finally {
    run('ip', 'netns', 'del', NETNS)
    rmSync(folder, { recursive: true })
  }
}

function run(command: string, ...args: readonly string[]): void {
  execFileSync(command, args, { stdio: 'inherit' })
}

/**
 * Runs the command under strace, which writes every byte of the netlink socket (mostly descriptor 3) into `trace`. Gives
 * the exit code.
 */
async function capture(
  command: string,
  folder: string,
  trace: string,
  provocation: readonly string[] | undefined,
): Promise<number | null> {
  // Its file comes before the socket.
  const socket = command.startsWith('wg setconf ') ? 4 : 3
  const strace = [
    'strace',
    '-o',
    trace,
    '-e',
    'trace=sendmsg,sendto,recvmsg',
    '-e',
    `read=${socket}`,
    '-e',
    `write=${socket}`,
  ]
  const args = [`--net=/run/netns/${NETNS}`, ...strace, ...command.split(' ')]
  const child = spawn('nsenter', args, { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] })
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  if (provocation !== undefined) {
    await delay(500)
    spawn('nsenter', [`--net=/run/netns/${NETNS}`, ...provocation], { stdio: 'ignore' })
    await delay(1500)
    // The command itself, strace's only child: strace ends with it, but it would not end with strace.
    execFileSync('kill', [readFileSync(`/proc/${child.pid}/task/${child.pid}/children`, 'utf8').trim()])
  }
  return ended
}

/** A system call, then its bytes as a hex dump: ` | 00000  20 00 00 00 …  …ascii |`. */
function messages(trace: string, command: string): string[] {
  const lines: string[] = []
  const asides = new Set<number>()
  for (const call of trace.split(/^(?=(?:sendmsg|sendto|recvmsg)\()/m)) {
    if (call.startsWith('recvmsg') && call.includes('MSG_PEEK')) continue
    const rows = Array.from(call.matchAll(/^ \| [0-9a-f]+ {2}(.{49})/gm), ([, row = '']) => row)
    const bytes = Buffer.from(rows.join('').replaceAll(' ', ''), 'hex')
    // Nothing is dumped of the sockets that look up the names of links.
    if (bytes.length === 0) continue
    const sent = call.startsWith('send')
    for (const message of sent ? [first(bytes)] : split(bytes)) {
      const sequence = message.readUInt32LE(8)
      if (sent && isAside(message, command)) asides.add(sequence)
      if (!asides.has(sequence)) lines.push(`${sent ? '>' : '<'} ${message.toString('hex')}`)
    }
  }
  return lines
}

/** `ip` asks for all links to know their names, and with sequence number 0 what the kernel knows of RTM_NEWLINK. */
function isAside(request: Buffer, command: string): boolean {
  const dump =
    request.readUInt16LE(4) === RTM_GETLINK &&
    !command.includes(' link ') &&
    !/^(?:ethtool|wg) /.test(command)
  return dump || request.readUInt32LE(8) === 0
}

/** `ip` sends one message at a time, for some of its dumps with zeros behind it. */
function first(bytes: Buffer): Buffer {
  return bytes.subarray(0, bytes.readUInt32LE(0))
}

function split(bytes: Buffer): Buffer[] {
  return splitMessages(bytes).map(({ payload }) => {
    const start = payload.byteOffset - bytes.byteOffset - 16
    return bytes.subarray(start, start + 16 + payload.length)
  })
}

await main()
