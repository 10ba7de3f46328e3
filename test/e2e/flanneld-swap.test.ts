/**
 * tweed takes the place of flanneld on a live host, and gives it back.
 *
 * flanneld does not know what tweed leaves behind. 0.9 and later replace the routes: nexthop objects stay that nothing
 * uses, and of the L3-miss mode the network's route and the containers' neighbours. Up to 0.8 tweed's static routes and
 * its neighbours go on leading packets, also when the leases that they stand for have changed, until they are tidied away.
 */

import assert from 'node:assert/strict'
import { stat } from 'node:fs/promises'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { isDeepStrictEqual } from 'node:util'
import { parseIp } from '../../src/address/ip.ts'
import { parseMac } from '../../src/address/mac.ts'
import { parsePrefix, prefixContains, prefixOf } from '../../src/address/prefix.ts'
import { attachContainer } from '../../src/lab/build.ts'
import { bridge, ip, ipBatch, run } from '../../src/lab/command.ts'
import { ping } from '../../src/lab/ping.ts'
import { containerAddresses, type LabHost } from '../../src/lab/topology.ts'
import { type News, Watch } from '../../src/lab/watch.ts'
import { Flanneld, flannelLease, type Generation, type Peer, peerOf } from './flanneld.ts'
import { Overlay } from './overlay.ts'

const CONFIGS = {
  static: '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}',
  'L3-miss': '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan", "L3Miss": true}}',
} as const

const PATIENCE = 20_000

/** To host-B's subnet and to the network. */
const TWEEDS = {
  peer: '10.10.11.0/24 nhid 1409286144 via 10.10.11.0 proto 84 onlink',
  network: '10.10.0.0/16 proto 84 scope link',
} as const
const FLANNELS = { peer: '10.10.11.0/24 via 10.10.11.0 onlink', network: '10.10.0.0/16' } as const

interface Swap {
  readonly from: Generation
  readonly mode: keyof typeof CONFIGS
  /** Undefined for 0.5: a start of it takes down what it finds, its own too. */
  readonly back?: {
    /** The routes on flannel.1 when flanneld is back. */
    readonly routes: readonly string[]
    /** What an operator does with `ip` to be rid of tweed's, and the routes then. */
    readonly tidy: readonly string[]
    readonly tidied: readonly string[]
  }
}

const FLUSH_ROUTES = 'route flush proto 84'
/** With the routes that use them, on which `ip route flush` of iproute2 6.1 fails. */
const FLUSH_NEXTHOPS = 'nexthop flush proto 84'
/** Not for 0.9, whose own are permanent. */
const FLUSH_NEIGHBOURS = 'neigh flush dev flannel.1 nud permanent'

const SWAPS: readonly Swap[] = [
  {
    from: '0.9',
    mode: 'static',
    back: { routes: [FLANNELS.peer], tidy: [FLUSH_NEXTHOPS], tidied: [FLANNELS.peer] },
  },
  {
    from: '0.9',
    mode: 'L3-miss',
    back: { routes: [TWEEDS.network, FLANNELS.peer], tidy: [FLUSH_ROUTES], tidied: [FLANNELS.peer] },
  },
  {
    from: '0.8',
    mode: 'static',
    back: {
      routes: [FLANNELS.network, TWEEDS.peer],
      tidy: [FLUSH_NEXTHOPS, FLUSH_NEIGHBOURS],
      tidied: [FLANNELS.network],
    },
  },
  {
    from: '0.8',
    mode: 'L3-miss',
    back: { routes: [TWEEDS.network], tidy: [FLUSH_NEIGHBOURS], tidied: [TWEEDS.network] },
  },
  { from: '0.5', mode: 'static' },
  { from: '0.5', mode: 'L3-miss' },
]

/** A peer that left while flanneld was away: since 0.9 it never looks for what was left behind. */
const GONE: Peer = {
  subnet: parsePrefix('10.10.60.0/24'),
  publicIp: parseIp('192.168.1.60'),
  mac: parseMac('6e:f7:a4:d8:2b:3c'),
}

/** What an operator has on the same host, near to the overlay. */
const OPERATOR = [
  'route add 172.16.0.0/16 via 192.168.1.99',
  'route add 10.10.99.0/24 via 192.168.1.99',
  'neigh add 192.168.1.77 lladdr 02:77:00:00:00:00 dev eth0 nud permanent',
  'nexthop add id 7 via 192.168.1.99 dev eth0',
  'rule add from 10.10.0.0/16 lookup 100 pref 500',
]

for (const { from, mode, back } of SWAPS) {
  const and = back === undefined ? '' : ', and back'
  test(`flanneld ${from} to tweed in ${mode} mode${and}: not a packet is lost`, async () => {
    await using overlay = await Overlay.build(2, undefined)
    await overlay.putConfig(CONFIGS[mode])
    const [a, b] = [overlay.host(0), overlay.host(1)]
    for (const host of overlay.hosts) addLease(overlay, host, from)
    await using _ = await Flanneld.start(b, from, [peerOf(a)])
    await using flanneld = await Flanneld.start(a, from, [peerOf(b), GONE])
    // host-B had another MAC once.
    await bridge(a.namespace, 'fdb add 6e:f7:a4:d8:2b:ff dev flannel.1 dst 192.168.1.11 self permanent')
    for (const host of overlay.hosts) await attachContainer(host)
    await ipBatch(a.namespace, OPERATOR)
    const untouched = await foreign(a, from)

    await underStreams(overlay, async (flow) => {
      await flow()
      const stayed = await tables(b)
      await using closing = new AsyncDisposableStack()
      const { news } = closing.adopt(new Watch(a.path), (watch) => watch.close())
      const leading = await ip(a.namespace, 'route show match 10.10.11.2')

      await flanneld[Symbol.asyncDispose]()
      const agent = overlay.start(a, '--ip-masq')
      const { lease, mac } = await agent.untilReady()
      assert.deepEqual([lease.subnet, mac], [a.subnet, peerOf(a).mac])
      assert.deepEqual(readLease(overlay, a), flannelLease(peerOf(a), '0.9'))
      await flow()
      const taken = expected(peerOf(b), from, mode)
      await untilTables(a, taken)
      const { failures, repaired } = (await agent.status()).counters
      assert.deepEqual({ failures, repaired }, { failures: 0, repaired: 0 })

      await agent.end('SIGTERM')
      const again = overlay.start(a, '--ip-masq')
      await again.untilReady()
      assert.equal((await again.untilSaid(/^first turn$/))['operations'], 0, again.stderr)
      await flow()
      assert.equal(await again.end('SIGTERM'), 0)
      assert.deepEqual(await tables(a), taken)
      assert.deepEqual(await foreign(a, from), untouched)

      if (back !== undefined) {
        await using _ = await Flanneld.start(a, from, [peerOf(b)])
        await flow()
        assert.deepEqual(await tables(a), { ...taken, routes: back.routes })

        for (const words of back.tidy) await ip(a.namespace, words)
        await flow()
        const { routes, nexthops } = await tables(a)
        assert.deepEqual({ routes, nexthops }, { routes: back.tidied, nexthops: [] })
      }

      assert.deepEqual(await tables(b), stayed)
      assertAlwaysLed(leading, news)
    })
  })
}

/** In the registry, as flanneld of that generation wrote it: it expires in a day. */
function addLease(overlay: Overlay, host: LabHost, generation: Generation): void {
  const expires = Date.now() + 86_400_000
  const words = 'INSERT INTO leases (key, value, expires) VALUES (?, ?, ?)'
  overlay.sql(words, ...flannelLease(peerOf(host), generation), expires)
}

function readLease(overlay: Overlay, { subnet }: LabHost): unknown[] {
  using database = new DatabaseSync(overlay.lab.registryPath, { readOnly: true })
  const row = database.prepare('SELECT key, value FROM leases WHERE key = ?').get(subnet.replace('/', '-'))
  return [row?.['key'], row?.['value']]
}

/** c1 and c2 send each other 1,000 packets a second during the work. `flow`: 100 more have come back on both sides. */
async function underStreams(
  overlay: Overlay,
  work: (flow: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const stop = new AbortController()
  const [a, b] = [overlay.host(0), overlay.host(1)]
  const streams = [
    { from: a, to: b, received: 0 },
    { from: b, to: a, received: 0 },
  ]
  const pinging = streams.map((stream) => {
    const { container: destination } = containerAddresses(stream.to.subnet)
    const options = { netns: stream.from.container.path, destination, interval: 1, timeout: 3000 }
    return ping({ ...options, signal: stop.signal }, () => stream.received++)
  })
  const flow = async (): Promise<void> => {
    const deadline = performance.now() + PATIENCE
    const goals = streams.map(({ received }) => received + 100)
    while (streams.some(({ received }, i) => received < (goals[i] ?? 0))) {
      assert.ok(performance.now() < deadline, `no packets for ${PATIENCE / 1000} s`)
      await sleep(10)
    }
  }
  try {
    await work(flow)
  } finally {
    stop.abort()
    await Promise.all(pinging)
  }
  for (const { sent, lost, errors } of await Promise.all(pinging)) {
    assert.deepEqual({ lost, errors }, { lost: [], errors: [] }, `of ${sent} packets`)
  }
}

/** A gap between two packets would not be seen by them: at every moment, as the kernel told it, a route led to c2. */
function assertAlwaysLed(leading: string, news: readonly News[]): void {
  const routes = new Set(lines(leading).map((line) => line.split(' ')[0]))
  for (const item of news) {
    if (!('route' in item) || item.route.destination === undefined) continue
    const prefix = prefixOf(item.route.destination, item.route.destinationLength)
    if (!prefixContains(prefix, parseIp('10.10.11.2'))) continue
    if (item.verb === 'new') routes.add(prefix)
    else routes.delete(prefix)
    assert.ok(routes.size > 0, `no route after that of ${prefix} went`)
  }
}

interface Tables {
  readonly addresses: readonly string[]
  readonly routes: readonly string[]
  /** The permanent ones: what flanneld 0.5 and 0.8 answered ages by itself. */
  readonly neighbours: readonly string[]
  readonly fdb: readonly string[]
  readonly nexthops: readonly string[]
}

/** What there is on flannel.1. */
async function tables({ namespace }: LabHost): Promise<Tables> {
  const addresses = lines(await ip(namespace, '-4 -o address show dev flannel.1'))
  return {
    addresses: addresses.map((line) => / inet (\S+)/.exec(line)?.[1] ?? line),
    routes: lines(await ip(namespace, '-4 route show dev flannel.1')),
    neighbours: lines(await ip(namespace, '-4 neigh show dev flannel.1 nud permanent')),
    fdb: lines(await bridge(namespace, 'fdb show dev flannel.1')),
    nexthops: lines(await ip(namespace, 'nexthop show dev flannel.1')),
  }
}

/** What tweed has on flannel.1 of host-A, with nothing of flanneld's beside it. 0.9's neighbour is a good answer, and stays. */
function expected({ mac, publicIp }: Peer, from: Generation, mode: Swap['mode']): Tables {
  const common = { addresses: ['10.10.10.0/32'], fdb: [`${mac} dst ${publicIp} self permanent`] }
  const gateway = `10.10.11.0 lladdr ${mac} PERMANENT`
  if (mode === 'static') {
    const nexthops = ['id 1409286144 via 10.10.11.0 dev flannel.1 scope link proto 84 onlink']
    return { ...common, routes: [TWEEDS.peer], neighbours: [gateway], nexthops }
  }
  const container = `10.10.11.2 lladdr ${mac} PERMANENT`
  const neighbours = from === '0.9' ? [gateway, container] : [container]
  return { ...common, routes: [TWEEDS.network], neighbours, nexthops: [] }
}

/** What tweed must leave alone: the operator's, and what flanneld made just as tweed would. */
async function foreign({ namespace, path, subnetFile }: LabHost, from: Generation): Promise<unknown[]> {
  const rules = from === '0.9' ? await run('nsenter', [`--net=${path}`, 'iptables-save']) : ''
  const { ino, mtimeMs } = await stat(subnetFile)
  return [
    lines(await ip(namespace, '-4 route show dev eth0')),
    lines(await ip(namespace, 'neigh show dev eth0 nud permanent')),
    lines(await ip(namespace, 'nexthop show dev eth0')),
    lines(await ip(namespace, 'rule show')),
    lines(rules.replaceAll(/^#.*\n|\[\d+:\d+\]/gm, '')),
    { ino, mtimeMs },
  ]
}

function lines(output: string): string[] {
  return output
    .split('\n')
    .map((line) => line.trim())
    .filter((line) => line !== '')
    .toSorted()
}

/** In L3-miss mode the last of it comes with the first packets. */
async function untilTables(host: LabHost, wanted: Tables): Promise<void> {
  const deadline = performance.now() + PATIENCE
  while (!isDeepStrictEqual(await tables(host), wanted) && performance.now() < deadline) await sleep(10)
  assert.deepEqual(await tables(host), wanted)
}
