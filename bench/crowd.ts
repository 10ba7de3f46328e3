/** How benches begin: a host that knows a network of many peers, or two hosts that know each other. */

import { setTimeout as sleep } from 'node:timers/promises'
import { untilConnected } from '../src/lab/agent.ts'
import { Arrivals } from './arrivals.ts'
import type { Options } from './bench.ts'
import { type BackendSettings, MODES, type Mode } from './network.ts'
import { Agent, type Programs } from './programs.ts'
import type { Stage } from './stage.ts'

/** Milliseconds after being ready until a start has been forgotten. */
const SETTLING = 4000

/** Who only wants to see that a bench works need not wait. */
export async function settle({ quick }: Pick<Options, 'quick'>): Promise<void> {
  await sleep(quick ? 0 : SETTLING)
}

interface Crowd extends Pick<Options, 'quick'> {
  readonly mode?: Mode
  readonly peers: number
  /** Another agent than tweed's. */
  readonly program?: readonly string[]
}

/** An agent on a new host, in sync with that many peers and at rest, for as long as the work takes. */
export async function amongPeers<T>(
  stage: Stage,
  programs: Programs,
  { mode = 'static', peers, program, quick }: Crowd,
  work: (agent: Agent) => Promise<T>,
): Promise<T> {
  const host = stage.host(0)
  await stage.network(MODES[mode], peers)
  await stage.renew(host)
  const arrivals = await Arrivals.watch(programs, host, mode, peers)
  const agent = Agent.start(program ?? [programs.tweed, 'agent'], host)
  try {
    await arrivals.last(agent)
    if (program === undefined) await agent.untilReady()
    await settle({ quick })
    return await work(agent)
  } finally {
    await agent.stop()
  }
}

/** An agent on each of the stage's hosts, all in sync with each other, for as long as the work takes. */
export async function amongHosts<T>(
  stage: Stage,
  programs: Programs,
  { backend, peers = 0, signal }: { backend: BackendSettings; peers?: number; signal: Options['signal'] },
  work: (agents: Agent[]) => Promise<T>,
): Promise<T> {
  await stage.network(backend, peers)
  const files = backend.Type === 'wireguard'
  const agents = stage.lab.hosts.map((host) => Agent.start([programs.tweed, 'agent'], host, { files }))
  try {
    for (const agent of agents) await agent.untilReady()
    await untilConnected(stage.lab, signal)
    return await work(agents)
  } finally {
    for (const agent of agents) await agent.stop()
  }
}
