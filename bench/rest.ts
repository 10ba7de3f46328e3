/** What an agent holds and uses when nothing happens. */

import { setTimeout as sleep } from 'node:timers/promises'
import type { Bench, Options } from './bench.ts'
import { amongPeers } from './crowd.ts'
import { type Measured, medianOf, type Row } from './measure.ts'
import { count } from './network.ts'
import type { Programs } from './programs.ts'
import { Stage } from './stage.ts'

/** V8 looks for memory to give back some ten seconds after the last work. Milliseconds. */
const REST = 15_000
/** What is to be reached is said in MB, 10^6 bytes; the kernel counts in MiB. */
const MB_IN_MIB = 2 ** 20 / 1e6
/** The most that the peer is asked for. */
const MOST_FOR_PEER = 10_000

export const rest: Bench = {
  name: 'rest',
  summary: 'resident memory with 100 to 40,000 leases, CPU at rest',
  run: (programs, options) =>
    Stage.with(1, options, async (stage): Promise<Measured> => {
      const sizes = options.quick ? [100, 1000] : [100, 10_000, 40_000]
      const rows: Row[] = []
      for (const peers of sizes) {
        rows.push(...(await memory(stage, programs, peers, 'tweed', options)))
        if (programs.peer !== undefined && peers <= MOST_FOR_PEER) {
          rows.push(...(await memory(stage, programs, peers, 'peer', options)))
        }
      }
      rows.push(await cpu(stage, programs, options))
      const resident = (peers: number): number => medianOf(rows, memoryCase('resident', peers), 'tweed')
      const bounds = [
        [100, 70],
        [10_000, 110],
      ] as const
      return {
        rows,
        claims: [
          ...bounds
            .filter(([peers]) => sizes.includes(peers))
            .map(([peers, bound]) => ({
              what: `${memoryCase('resident', peers)}, MB (10^6 bytes)`,
              measured: resident(peers) * MB_IN_MIB,
              bound,
            })),
          {
            what: 'CPU at rest, % of a processor',
            measured: rows.at(-1)?.samples[0] ?? Number.NaN,
            bound: 0.2,
          },
        ],
      }
    }),
}

function memoryCase(what: 'resident' | 'the most', peers: number): string {
  return `${what}, ${count(peers)} leases`
}

async function memory(
  stage: Stage,
  programs: Programs,
  peers: number,
  candidate: 'tweed' | 'peer',
  { runs, quick, tell }: Options,
): Promise<Row[]> {
  const resident: number[] = []
  const peak: number[] = []
  for (let i = 0; i < Math.min(runs, 5); i++) {
    tell(`rest: memory of ${candidate} with ${count(peers)} leases`)
    const program = candidate === 'peer' && programs.peer !== undefined ? { program: [programs.peer] } : {}
    await amongPeers(stage, programs, { peers, quick, ...program }, async (agent) => {
      await sleep(quick ? 100 : REST)
      resident.push(agent.memory.resident)
      peak.push(agent.memory.peak)
    })
  }
  return [
    { case: memoryCase('resident', peers), candidate, unit: 'MiB', samples: resident },
    { case: memoryCase('the most', peers), candidate, unit: 'MiB', samples: peak },
  ]
}

async function cpu(stage: Stage, programs: Programs, { quick, tell }: Options): Promise<Row> {
  const [peers, seconds] = quick ? [1000, 3] : [10_000, 60]
  tell(`rest: CPU over ${seconds} s with ${count(peers)} leases`)
  const used = await amongPeers(stage, programs, { peers, quick }, async (agent) => {
    await sleep(quick ? 100 : REST)
    const before = agent.cpu
    await sleep(seconds * 1000)
    return agent.cpu - before
  })
  return {
    case: `CPU at rest, ${count(peers)} leases, over ${seconds} s`,
    candidate: 'tweed',
    unit: '%',
    samples: [used / (10 * seconds)],
  }
}
