/** A host that knows a network of many peers: how most benches begin. */

import { setTimeout as sleep } from 'node:timers/promises'
import { Arrivals } from './arrivals.ts'
import type { Mode } from './network.ts'
import { Agent, type Programs } from './programs.ts'
import type { Stage } from './stage.ts'

/** Milliseconds after being ready until a start has been forgotten. */
const SETTLING = 4000

/** An agent on a new host, in sync with that many peers and at rest, for as long as the work takes. */
export async function amongPeers<T>(
  stage: Stage,
  programs: Programs,
  { mode = 'static', peers, program }: { mode?: Mode; peers: number; program?: readonly string[] },
  work: (agent: Agent) => Promise<T>,
): Promise<T> {
  const host = stage.host(0)
  await stage.network(mode, peers)
  await stage.renew(host)
  const arrivals = await Arrivals.watch(programs, host, mode, peers)
  const agent = Agent.start(program ?? [programs.tweed, 'agent'], host)
  try {
    await arrivals.last(agent)
    if (program === undefined) await agent.untilReady()
    await sleep(SETTLING)
    return await work(agent)
  } finally {
    await agent.stop()
  }
}
