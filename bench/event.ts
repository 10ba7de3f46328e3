/** One lease at a time, and 10,000 as fast as etcd takes them, into a network that is there. */

import { setTimeout as sleep } from 'node:timers/promises'
import { decodeRoute } from '../src/netlink/route.ts'
import { RTM_DELROUTE, RTM_NEWROUTE, RTNLGRP_IPV4_ROUTE } from '../src/netlink/rtnetlink.ts'
import { Arrivals } from './arrivals.ts'
import type { Bench, Options } from './bench.ts'
import { amongPeers } from './crowd.ts'
import { type Claim, type Measured, median, percentile, type Row } from './measure.ts'
import { count, peer } from './network.ts'
import type { Agent, Programs } from './programs.ts'
import { Stage } from './stage.ts'
import { Watch } from './watch.ts'

/** The first peer that is not there from the start. */
const FIRST = 50_001
/** Milliseconds between two events: each finds the agent at rest. */
const PAUSE = 30

interface Events {
  readonly put: readonly number[]
  readonly remove: readonly number[]
  /** Of the agent, in ms for each event. */
  readonly cpu: number
}

export const event: Bench = {
  name: 'event',
  summary: 'a lease put into etcd → in the kernel, with few and with many leases present; many at once',
  run: (programs, options) =>
    Stage.with(1, options, async (stage): Promise<Measured> => {
      const [few, many] = options.quick ? [100, 1000] : [100, 40_000]
      const small = await measure(stage, programs, few, options)
      const large = await measure(stage, programs, many, options)
      const burst = await measureBurst(stage, programs, options)
      const more = `with ${count(many)} leases, less that with ${count(few)}`
      return {
        rows: [...rowsOf(few, small), ...rowsOf(many, large), burst],
        claims: [
          lateness(`put → route, p99: ${more}, ms`, large.put, small.put),
          lateness(`delete → no route, p99: ${more}, ms`, large.remove, small.remove),
          {
            what: `agent CPU for an event: with ${count(many)} leases / with ${count(few)}`,
            measured: large.cpu / small.cpu,
            bound: 1.5,
          },
          { what: `${burst.case}, ms`, measured: median(burst.samples), bound: 1000 },
        ],
      }
    }),
}

/** How much later the slowest of 100 are. */
function lateness(what: string, large: readonly number[], small: readonly number[]): Claim {
  return { what, measured: percentile(large, 0.99) - percentile(small, 0.99), bound: 10 }
}

function rowsOf(peers: number, { put, remove, cpu }: Events): Row[] {
  const name = `${count(peers)} leases`
  const row = (what: string, samples: readonly number[]): Row => ({
    case: `${name}: ${what}`,
    candidate: 'tweed',
    unit: 'ms',
    samples,
  })
  return [
    row('put → route', put),
    row('put → route, p99', [percentile(put, 0.99)]),
    row('delete → no route', remove),
    row('delete → no route, p99', [percentile(remove, 0.99)]),
    row('agent CPU for an event', [cpu]),
  ]
}

function measure(stage: Stage, programs: Programs, peers: number, { quick, tell }: Options): Promise<Events> {
  tell(`event: one at a time, with ${count(peers)} leases`)
  const events = quick ? 20 : 300
  return amongPeers(stage, programs, { peers, quick }, async (agent) => {
    using watch = Watch.open(stage.host(0), [RTNLGRP_IPV4_ROUTE])
    const put: number[] = []
    const remove: number[] = []
    // Unmeasured ones first: after a start with few leases V8 has compiled less than after one with many.
    for (let i = 0; i < events; i++) await once(stage, watch, FIRST + i, [], [])
    const before = agent.cpu
    for (let i = 0; i < events; i++) await once(stage, watch, FIRST + events + i, put, remove)
    return { put, remove, cpu: (agent.cpu - before) / (2 * events) }
  })
}

/** A lease comes and goes. */
async function once(stage: Stage, watch: Watch, n: number, put: number[], remove: number[]): Promise<void> {
  const { subnet } = peer(n)
  for (const [order, type, times] of [
    [{ kind: 'put', from: n, to: n }, RTM_NEWROUTE, put],
    [{ kind: 'delete', peer: n }, RTM_DELROUTE, remove],
  ] as const) {
    const seen = watch.until(`the route of ${subnet}`, (message) => {
      if (message.type !== type) return false
      const { destination, destinationLength } = decodeRoute(message.payload)
      return `${destination}/${destinationLength}` === subnet
    })
    const [{ began }, at] = await Promise.all([stage.order(order), seen])
    times.push(Number(at - began) / 1e6)
    await sleep(PAUSE)
  }
}

/** From the last answer of etcd until the last route; 0 when the kernel had it first. */
async function measureBurst(stage: Stage, programs: Programs, options: Options): Promise<Row> {
  const [present, added] = options.quick ? [100, 1000] : [100, 10_000]
  const samples: number[] = []
  for (let i = 0; i < Math.min(options.runs, 5); i++) {
    options.tell(`event: ${count(added)} leases added live`)
    const run = async (agent: Agent): Promise<number> => {
      const arrivals = await Arrivals.watch(programs, stage.host(0), 'static', added)
      const { ended } = await stage.order({ kind: 'put', from: FIRST, to: FIRST + added - 1 })
      return Math.max(0, Number((await arrivals.last(agent)) - ended) / 1e6)
    }
    samples.push(await amongPeers(stage, programs, { peers: present, quick: options.quick }, run))
  }
  const name = `${count(added)} leases added live: last put → last route`
  return { case: name, candidate: 'tweed', unit: 'ms', samples }
}
