/** An agent that is killed and started again, on a kernel that is right, under a ping between containers. */

import { setTimeout as sleep } from 'node:timers/promises'
import { hostStatus } from '../src/lab/agent.ts'
import { attachContainer } from '../src/lab/build.ts'
import { ping } from '../src/lab/ping.ts'
import { containerAddresses } from '../src/lab/topology.ts'
import { parsePrefix } from '../src/address/prefix.ts'
import type { Bench, Options } from './bench.ts'
import { amongHosts } from './crowd.ts'
import type { Measured, Row } from './measure.ts'
import { count, MODES } from './network.ts'
import { Agent, type Programs } from './programs.ts'
import { Stage } from './stage.ts'

/** Milliseconds. */
const AWAY = 1000
const PING_INTERVAL = 10

interface Restart {
  /** From the start of the process until it is ready, in ms. */
  readonly took: number
  readonly operations: number
  readonly sent: number
  readonly lost: number
}

export const restart: Bench = {
  name: 'restart',
  summary: 'an agent killed and started again on a kernel that is right: operations, packets lost',
  run: (programs, options) =>
    Stage.with(2, options, async (stage): Promise<Measured> => {
      const peers = options.quick ? 1000 : 40_000
      const restarts = await onTwoHosts(stage, programs, peers, options, async (again) => {
        const all: Restart[] = []
        for (let i = 0; i < Math.min(options.runs, 3); i++) all.push(await again())
        return all
      })
      const row = (what: string, unit: string, value: (restart: Restart) => number): Row => ({
        case: `${count(peers)} leases: ${what}`,
        candidate: 'tweed',
        unit,
        samples: restarts.map(value),
      })
      return {
        rows: [
          row('start → ready', 'ms', ({ took }) => took),
          row('operations', '', ({ operations }) => operations),
          row('packets sent', '', ({ sent }) => sent),
          row('packets lost', '', ({ lost }) => lost),
        ],
        claims: [
          {
            what: 'operations',
            measured: Math.max(...restarts.map(({ operations }) => operations)),
            bound: 0,
          },
          { what: 'packets lost', measured: Math.max(...restarts.map(({ lost }) => lost)), bound: 0 },
        ],
      }
    }),
}

/** Two hosts with a container on each, whose agents know each other and all the peers. */
function onTwoHosts<T>(
  stage: Stage,
  programs: Programs,
  peers: number,
  { signal }: Options,
  work: (again: () => Promise<Restart>) => Promise<T>,
): Promise<T> {
  return amongHosts(stage, programs, { backend: MODES.static, peers, signal }, async (agents) => {
    for (const host of stage.lab.hosts) await attachContainer(host)
    return work(() => restartFirst(stage, programs, agents))
  })
}

/** @param agents The first is replaced by the one that is started, at once: whoever has them stops it too. */
async function restartFirst(stage: Stage, programs: Programs, agents: Agent[]): Promise<Restart> {
  const [a, b] = [stage.host(0), stage.host(1)]
  const { subnet } = (await hostStatus(b)).lease
  const { container: destination } = containerAddresses(parsePrefix(subnet))
  const stop = new AbortController()
  const options = { netns: a.container.path, destination, interval: PING_INTERVAL, timeout: 3000 }
  const pinging = ping({ ...options, signal: stop.signal })
  try {
    await sleep(500)
    await agents[0]?.stop('SIGKILL')
    await sleep(AWAY)
    const began = performance.now()
    const restarted = Agent.start([programs.tweed, 'agent'], a)
    agents[0] = restarted
    await restarted.untilReady()
    const took = performance.now() - began
    await sleep(500)
    const { operations } = (await hostStatus(a)).counters
    stop.abort()
    const { sent, lost } = await pinging
    return { took, operations, sent, lost: lost.length }
  } finally {
    stop.abort()
    await pinging
  }
}
