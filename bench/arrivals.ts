/** When a network has arrived in a kernel (`arrivals.c`), and whether all of it is there. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface, type Interface } from 'node:readline'
import { bridge, ip } from '../src/lab/command.ts'
import type { LabHost } from '../src/lab/topology.ts'
import { LINK, type Mode } from './network.ts'
import type { Agent, Programs } from './programs.ts'

const PATIENCE = 300_000

/** Waits for all peers in the kernel of a host, from before the agent begins. */
export class Arrivals {
  readonly #child: ChildProcess
  readonly #lines: Interface

  private constructor(child: ChildProcess, lines: Interface) {
    this.#child = child
    this.#lines = lines
  }

  static async watch({ arrivals }: Programs, host: LabHost, mode: Mode, peers: number): Promise<Arrivals> {
    const words = [`--net=${host.path}`, arrivals, `${peers}`, mode === 'static' ? 'route' : 'fdb']
    const child = spawn('nsenter', words, { stdio: ['ignore', 'pipe', 'inherit'] })
    const lines = createInterface(child.stdout)
    const [line] = await once(lines, 'line')
    if (line !== 'ready') throw new Error(`arrivals says ${line}`)
    return new Arrivals(child, lines)
  }

  /** When the last one came, in nanoseconds of CLOCK_MONOTONIC. @throws when the agent ends, or it takes too long. */
  async last(agent: Agent): Promise<bigint> {
    const watch = new AbortController()
    const guard = setInterval(() => {
      if (agent.end !== undefined) watch.abort(new Error(`the agent has ended: ${agent.end}`))
    }, 500)
    try {
      const signal = AbortSignal.any([watch.signal, AbortSignal.timeout(PATIENCE)])
      const [line] = await once(this.#lines, 'line', { signal })
      return BigInt(line)
    } catch (error) {
      throw watch.signal.aborted ? watch.signal.reason : error
    } finally {
      clearInterval(guard)
      this.#child.kill()
    }
  }
}

/** What the kernel of a host holds of peers, as `ip` and `bridge` count it. @throws when it is not all of them. */
export async function checkArrived(host: LabHost, mode: Mode, peers: number): Promise<void> {
  const lines = (text: string, pattern: RegExp): number =>
    text.split('\n').filter((line) => pattern.test(line)).length
  const counts = {
    routes: lines(await ip(host.namespace, `route show dev ${LINK}`), /^10\.\d+\.\d+\.0\/24 /),
    neighbours: lines(await ip(host.namespace, `neigh show dev ${LINK}`), /lladdr 02:42:00:.*PERMANENT/),
    fdb: lines(await bridge(host.namespace, `fdb show dev ${LINK}`), /^02:42:00:.*dst 172\./),
  }
  const wanted = mode === 'static' ? peers : 0
  if (counts.fdb === peers && counts.routes === wanted && counts.neighbours === wanted) return
  throw new Error(`of ${peers} peers the kernel of ${host.name} has ${JSON.stringify(counts)}`)
}
