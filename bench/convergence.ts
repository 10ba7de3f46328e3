/**
 * From the start of the process until everything is in the kernel, over N, in both modes; beside it the least that a
 * program on Node takes, with and without a memory, the floor, and the time of `etcdctl get --prefix` for the same keys.
 */

import { ipBatch } from '../src/lab/command.ts'
import { ETCD_PREFIX, ETCD_URL } from '../src/lab/registry.ts'
import type { LabHost } from '../src/lab/topology.ts'
import { Arrivals, checkArrived } from './arrivals.ts'
import type { Bench, Options } from './bench.ts'
import { type Claim, type Measured, medianOf, type Row } from './measure.ts'
import { count, LINK, MODES, type Mode } from './network.ts'
import { Agent, type Programs, timed } from './programs.ts'
import { Stage } from './stage.ts'

const ORDER = ['static', 'l3miss'] as const
/** `bare.ts`, with one map of leases, and with all that an agent must have at hand. */
const NODES = ['bare Node', 'remembering Node'] as const
/** flanneld needs 10 s for 10,000 leases and minutes for more, and has no L3 misses since 0.9. */
const MOST_FOR_PEER = 10_000
/** So few that they take no time of their own. */
const FEW = 100
/** Of the link that bare Node is given. */
const LINK_INDEX = 1000

export const convergence: Bench = {
  name: 'convergence',
  summary:
    'process start → everything programmed, over N, in both modes; with bare Node, the floor and etcdctl',
  run: (programs, options) =>
    Stage.with(1, options, async (stage): Promise<Measured> => {
      const rows: Row[] = []
      for (const mode of ORDER) {
        for (const peers of options.leases) {
          options.tell(`convergence: ${caseName(mode, peers)}`)
          await stage.network(MODES[mode], peers)
          rows.push(...(await measure(stage, programs, mode, peers, options)))
        }
      }
      return { rows, claims: claims(rows, options.leases) }
    }),
}

function caseName(mode: Mode, peers: number): string {
  return `${mode}, ${count(peers)} leases`
}

/** The candidates in turn, again and again, so that a machine that changes its pace changes it for all. */
async function measure(
  stage: Stage,
  programs: Programs,
  mode: Mode,
  peers: number,
  { runs }: Options,
): Promise<Row[]> {
  const takesPart = programs.peer !== undefined && mode === 'static' && peers <= MOST_FOR_PEER
  const candidates: Record<string, () => Promise<number>> = {
    tweed: () => agentRun(stage, programs, [programs.tweed, 'agent'], mode, peers),
    'bare Node': () => bareRun(stage, programs, mode, peers, 'bare'),
    'remembering Node': () => bareRun(stage, programs, mode, peers, 'remembering'),
    floor: () => floorRun(stage, programs, mode, peers),
    'etcdctl get': () => etcdctlRun(stage),
    ...(takesPart && { peer: () => agentRun(stage, programs, [programs.peer ?? ''], mode, peers) }),
  }
  const samples = new Map(Object.keys(candidates).map((name) => [name, [] as number[]]))
  for (let i = 0; i < runs; i++) {
    for (const [name, once] of Object.entries(candidates)) samples.get(name)?.push(await once())
  }
  return [...samples].map(([candidate, figures]) => ({
    case: caseName(mode, peers),
    candidate,
    unit: 'ms',
    samples: figures,
  }))
}

async function agentRun(
  stage: Stage,
  programs: Programs,
  program: readonly string[],
  mode: Mode,
  peers: number,
): Promise<number> {
  const host = stage.host(0)
  await stage.renew(host)
  return await untilArrived(programs, program, host, mode, peers)
}

/** On a link like that of `floor.c`. */
async function bareRun(
  stage: Stage,
  programs: Programs,
  mode: Mode,
  peers: number,
  memory: 'bare' | 'remembering',
): Promise<number> {
  const host = stage.host(0)
  await stage.renew(host)
  await ipBatch(host.namespace, [
    `link add ${LINK} index ${LINK_INDEX} mtu 1450 type vxlan id 1 dev eth0 dstport 8472 nolearning`,
    `address add 10.255.255.0/32 dev ${LINK}`,
    `link set ${LINK} up`,
  ])
  return await untilArrived(programs, [...programs.bare, mode, `${LINK_INDEX}`, memory], host, mode, peers)
}

async function untilArrived(
  programs: Programs,
  program: readonly string[],
  host: LabHost,
  mode: Mode,
  peers: number,
): Promise<number> {
  const arrivals = await Arrivals.watch(programs, host, mode, peers)
  const began = process.hrtime.bigint()
  const agent = Agent.start(program, host)
  try {
    const took = Number((await arrivals.last(agent)) - began) / 1e6
    await checkArrived(host, mode, peers)
    return took
  } finally {
    await agent.stop()
  }
}

async function floorRun(stage: Stage, { floor }: Programs, mode: Mode, peers: number): Promise<number> {
  const host = stage.host(0)
  await stage.renew(host)
  const { output } = await timed(host, [floor, `${peers}`, mode])
  return Number(/^sum (\d+)$/m.exec(output)?.[1]) / 1000
}

async function etcdctlRun(stage: Stage): Promise<number> {
  const command = `exec etcdctl get --prefix ${ETCD_PREFIX}/subnets >/dev/null`
  const env = { ETCDCTL_API: '3', ETCDCTL_ENDPOINTS: ETCD_URL }
  return (await timed(stage.lab.underlay, ['sh', '-c', command], env)).took
}

function claims(rows: readonly Row[], leases: readonly number[]): Claim[] {
  const all: Claim[] = []
  for (const mode of ORDER) {
    const of = (peers: number, candidate: string): number => medianOf(rows, caseName(mode, peers), candidate)
    for (const peers of [10_000, 40_000].filter((n) => leases.includes(n))) {
      const sum = of(peers, 'floor') + of(peers, 'etcdctl get')
      all.push({
        what: `${caseName(mode, peers)}: tweed / (floor + etcdctl get)`,
        measured: of(peers, 'tweed') / sum,
        bound: 2,
      })
      for (const node of NODES) {
        all.push({
          what: `${caseName(mode, peers)}: ${node} / (floor + etcdctl get)`,
          measured: of(peers, node) / sum,
        })
      }
      if (!leases.includes(FEW)) continue
      // A start with few leases is what the leases do not change. What the bound leaves beside it is for them.
      const each = (milliseconds: number): number => (1000 * milliseconds) / peers
      const tell = (who: string, milliseconds: number): void => {
        all.push({ what: `${caseName(mode, peers)}: ${who} a lease, µs`, measured: each(milliseconds) })
      }
      tell('the bound leaves', 2 * sum - of(FEW, 'tweed'))
      for (const who of ['tweed', ...NODES]) tell(`${who} takes`, of(peers, who) - of(FEW, who))
    }
    const growth = of(40_000, 'tweed') / of(10_000, 'tweed')
    if (!Number.isNaN(growth))
      all.push({ what: `${mode}: tweed at 40,000 / at 10,000`, measured: growth, bound: 5 })
    const peer = of(10_000, 'tweed') / of(10_000, 'peer')
    if (!Number.isNaN(peer))
      all.push({ what: `${caseName(mode, 10_000)}: tweed / peer`, measured: peer, bound: 1 / 8 })
  }
  return all
}
