/** What somebody deletes by hand, and when it is back. */

import { setTimeout as sleep } from 'node:timers/promises'
import { type Ip, parseIp } from '../src/address/ip.ts'
import { type Mac, parseMac } from '../src/address/mac.ts'
import { prefixBase, parsePrefix } from '../src/address/prefix.ts'
import { ip } from '../src/lab/command.ts'
import { hostStatus } from '../src/lab/agent.ts'
import { Connection } from '../src/netlink/connection.ts'
import type { Message, Request } from '../src/netlink/message.ts'
import { decodeNeighbour, deleteNeighbour, NTF_SELF, NUD_PERMANENT } from '../src/netlink/neighbour.ts'
import { deleteNexthop } from '../src/netlink/nexthop.ts'
import { decodeRoute, deleteRoute, RT_SCOPE_NOWHERE, RT_TABLE_MAIN } from '../src/netlink/route.ts'
import {
  AF_BRIDGE,
  AF_INET,
  RTM_NEWNEIGH,
  RTM_NEWROUTE,
  RTNLGRP_IPV4_ROUTE,
  RTNLGRP_NEIGH,
} from '../src/netlink/rtnetlink.ts'
import type { Bench, Options } from './bench.ts'
import { amongPeers } from './crowd.ts'
import type { Measured, Row } from './measure.ts'
import { count, LINK, peer } from './network.ts'
import type { Programs } from './programs.ts'
import { Stage } from './stage.ts'
import { Watch } from './watch.ts'

const KINDS = ['route', 'neighbour', 'FDB entry', 'nexthop'] as const
type Kind = (typeof KINDS)[number]

/** Milliseconds. */
const PAUSE = 20
/** A status with 40,000 peers leaves garbage that V8 collects some 8 s later: that is no cost of a repair. */
const FORGETTING = 12_000

interface Target {
  readonly base: Ip
  readonly mac: Mac
  readonly nexthop: number
}

interface Drift {
  readonly times: ReadonlyMap<Kind, readonly number[]>
  /** Of the agent, in ms for each repair. */
  readonly cpu: number
  readonly overruns: number
}

export const drift: Bench = {
  name: 'drift',
  summary: 'one entry of many is deleted by hand → it is back, without all being read again',
  run: (programs, options) =>
    Stage.with(1, options, async (stage): Promise<Measured> => {
      const [few, many] = options.quick ? [100, 1000] : [100, 40_000]
      const small = await measure(stage, programs, few, options)
      const large = await measure(stage, programs, many, options)
      const row = (name: string, samples: readonly number[]): Row => ({
        case: name,
        candidate: 'tweed',
        unit: 'ms',
        samples,
      })
      return {
        rows: [
          ...[...large.times].map(([kind, times]) => row(`${kind} of ${count(many)}: deleted → back`, times)),
          row(`agent CPU for a repair, ${count(few)} leases`, [small.cpu]),
          row(`agent CPU for a repair, ${count(many)} leases`, [large.cpu]),
        ],
        claims: [
          ...[...large.times].map(([kind, times]) => ({
            what: `${kind}: deleted → back, the longest, ms`,
            measured: Math.max(...times),
            bound: 100,
          })),
          {
            // Reading all of 40,000 again takes some 200.
            what: `agent CPU for a repair with ${count(many)} leases: no dump, ms`,
            measured: large.cpu,
            bound: 5,
          },
          { what: 'overruns meanwhile', measured: large.overruns, bound: 0 },
        ],
      }
    }),
}

function measure(stage: Stage, programs: Programs, peers: number, { quick, tell }: Options): Promise<Drift> {
  tell(`drift: with ${count(peers)} leases`)
  const host = stage.host(0)
  return amongPeers(stage, programs, { peers, quick }, async (agent) => {
    const index = Number(/^(\d+):/.exec(await ip(host.namespace, `-o link show ${LINK}`))?.[1])
    using watch = Watch.open(host, [RTNLGRP_IPV4_ROUTE, RTNLGRP_NEIGH])
    using connection = Connection.open({ netns: host.path })
    const { overruns } = (await hostStatus(host)).counters
    await sleep(quick ? 0 : FORGETTING)
    const times = new Map<Kind, number[]>(KINDS.map((kind) => [kind, []]))
    const rounds = quick ? 5 : 50
    let before = 0
    // The first round warms up.
    for (let round = 0; round <= rounds; round++) {
      if (round === 1) before = agent.cpu
      for (const [i, kind] of KINDS.entries()) {
        const target = await targetOf(host.namespace, 1 + ((round * 7919 + i * 104_729) % peers))
        const back = watch.until(`the ${kind} of ${target.base}`, (message) => isBack(kind, target, message))
        const began = process.hrtime.bigint()
        // Both are awaited at once: a deletion that is refused leaves no promise without a hearer.
        const [at] = await Promise.all([back, connection.request(deletion(kind, target, index))])
        const took = Number(at - began) / 1e6
        if (round > 0) times.get(kind)?.push(took)
        await sleep(PAUSE)
      }
    }
    const cpu = (agent.cpu - before) / (rounds * KINDS.length)
    return { times, cpu, overruns: (await hostStatus(host)).counters.overruns - overruns }
  })
}

async function targetOf(namespace: string, n: number): Promise<Target> {
  const { subnet, mac } = peer(n)
  const shown = await ip(namespace, `route show ${subnet}`)
  return {
    base: prefixBase(parsePrefix(subnet)),
    mac: parseMac(mac),
    nexthop: Number(/nhid (\d+)/.exec(shown)?.[1]),
  }
}

function deletion(kind: Kind, { base, mac, nexthop }: Target, ifindex: number): Request {
  switch (kind) {
    case 'route':
      return deleteRoute({
        family: AF_INET,
        destination: base,
        destinationLength: 24,
        table: RT_TABLE_MAIN,
        scope: RT_SCOPE_NOWHERE,
      })
    case 'neighbour':
      return deleteNeighbour({ family: AF_INET, ifindex, destination: parseIp(base) })
    case 'FDB entry':
      return deleteNeighbour({ family: AF_BRIDGE, ifindex, mac, flags: NTF_SELF })
    case 'nexthop':
      return deleteNexthop(nexthop)
    default:
      return kind satisfies never
  }
}

/** A nexthop takes its route with it: it is back when that is. */
function isBack(kind: Kind, { base, mac }: Target, { type, payload }: Message): boolean {
  if (kind === 'route' || kind === 'nexthop') {
    if (type !== RTM_NEWROUTE) return false
    const { destination, destinationLength } = decodeRoute(payload)
    return destination === base && destinationLength === 24
  }
  if (type !== RTM_NEWNEIGH) return false
  const neighbour = decodeNeighbour(payload)
  if (kind === 'FDB entry') return neighbour.family === AF_BRIDGE && neighbour.mac === mac
  // The kernel tells of one that is deleted as failed before it tells that it is gone.
  return neighbour.destination === base && neighbour.state === NUD_PERMANENT
}
