/** 10,000 L3 misses for distinct addresses within a second; and misses that are lost, because the agent's socket overran. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseIp } from '../src/address/ip.ts'
import { parseMac } from '../src/address/mac.ts'
import { hostStatus } from '../src/lab/agent.ts'
import { ip } from '../src/lab/command.ts'
import type { LabHost } from '../src/lab/topology.ts'
import { Connection } from '../src/netlink/connection.ts'
import { NLM_F_CREATE, NLM_F_REPLACE } from '../src/netlink/message.ts'
import { newNeighbour, NUD_NOARP } from '../src/netlink/neighbour.ts'
import { AF_INET } from '../src/netlink/rtnetlink.ts'
import type { Bench, Options } from './bench.ts'
import { amongPeers } from './crowd.ts'
import type { Measured, Row } from './measure.ts'
import { count, LINK } from './network.ts'
import type { Agent, Programs } from './programs.ts'
import { Stage } from './stage.ts'

const IN_A_SUBNET = 250
const PEERS = 40
/** More notifications than the agent's buffer of 8 MB holds. */
const FLOOD = 40_000
/** As many as gc_thresh3 lets wait at a time, with room for others. */
const WAITING = 800
const PATIENCE = 15_000

/** The address of that number, from 0. */
export function missed(n: number): string {
  return `10.0.${1 + Math.trunc(n / IN_A_SUBNET)}.${1 + (n % IN_A_SUBNET)}`
}

interface Storm {
  /** From the first packet until all was answered, in ms. */
  readonly took: number
  readonly unanswered: number
  readonly overruns: number
}

export const misses: Bench = {
  name: 'misses',
  summary: '10,000 L3 misses within a second, and misses while the agent’s socket overruns',
  run: (programs, options) =>
    Stage.with(1, options, async (stage): Promise<Measured> => {
      const addresses = options.quick ? 1000 : PEERS * IN_A_SUBNET
      const storms = await repeat(stage, programs, options, () => storm(stage.host(0), addresses, 1000))
      const overrun = await repeat(stage, programs, options, (agent) => overrunStorm(stage.host(0), agent))
      const name = `${count(addresses)} misses within a second`
      const other = `${count(WAITING)} misses, and an overrun`
      const unanswered = (all: readonly Storm[]): number => Math.max(...all.map((each) => each.unanswered))
      return {
        rows: [...rowsOf(name, storms), ...rowsOf(other, overrun)],
        claims: [
          { what: `${name}: not answered`, measured: unanswered(storms), bound: 0 },
          { what: `${other}: not answered`, measured: unanswered(overrun), bound: 0 },
          {
            what: `${other}: runs without one`,
            measured: overrun.filter(({ overruns }) => overruns === 0).length,
            bound: 0,
          },
        ],
      }
    }),
}

function rowsOf(name: string, storms: readonly Storm[]): Row[] {
  const row = (what: string, unit: string, value: (storm: Storm) => number): Row => ({
    case: `${name}: ${what}`,
    candidate: 'tweed',
    unit,
    samples: storms.map(value),
  })
  return [
    row('first packet → all answered', 'ms', ({ took }) => took),
    row('not answered', '', ({ unanswered }) => unanswered),
    row('overruns', '', ({ overruns }) => overruns),
  ]
}

async function repeat(
  stage: Stage,
  programs: Programs,
  { runs, quick, tell }: Options,
  work: (agent: Agent) => Promise<Omit<Storm, 'overruns'>>,
): Promise<Storm[]> {
  const all: Storm[] = []
  for (let i = 0; i < Math.min(runs, 3); i++) {
    tell('misses: a storm')
    const run = async (agent: Agent): Promise<Storm> => {
      const before = (await hostStatus(stage.host(0))).counters.overruns
      const result = await work(agent)
      return { ...result, overruns: (await hostStatus(stage.host(0))).counters.overruns - before }
    }
    all.push(await amongPeers(stage, programs, { mode: 'l3miss', peers: PEERS, quick }, run))
  }
  return all
}

/** @param milliseconds Over which the packets are sent. */
async function storm(
  host: LabHost,
  addresses: number,
  milliseconds: number,
): Promise<Omit<Storm, 'overruns'>> {
  const program = fileURLToPath(new URL('miss-sender.ts', import.meta.url))
  const words = [`--net=${host.path}`, process.execPath, program, `${addresses}`, `${milliseconds}`]
  const sender = spawn('nsenter', words, { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(sender, 'exit')
  const said = await Promise.race([once(createInterface(sender.stdout), 'line'), ended])
  const [code] = await ended
  if (code !== 0) throw new Error('the sender failed')
  const [line] = said
  const unanswered = await untilAnswered(host, addresses)
  return { took: Number(process.hrtime.bigint() - BigInt(line)) / 1e6, unanswered }
}

/** How many are not answered when patience ends. */
async function untilAnswered(host: LabHost, addresses: number): Promise<number> {
  const deadline = performance.now() + PATIENCE
  for (;;) {
    const shown = await ip(host.namespace, `neigh show dev ${LINK} nud permanent`)
    const left = addresses - shown.split('\n').filter((line) => /^10\.0\.\d+\.\d+ lladdr/.test(line)).length
    if (left === 0 || performance.now() > deadline) return left
    await sleep(20)
  }
}

/** The agent is stopped; its socket is flooded, then come the misses, which it therefore never hears of; it goes on. */
async function overrunStorm(host: LabHost, agent: Agent): Promise<Omit<Storm, 'overruns'>> {
  using connection = Connection.open({ netns: host.path })
  const index = Number(/^(\d+):/.exec(await ip(host.namespace, '-o link show eth0'))?.[1])
  const destination = parseIp('192.168.1.200')
  agent.signal('SIGSTOP')
  try {
    const flood = Array.from({ length: FLOOD }, (_, i) => {
      const mac = parseMac(`02:00:00:00:00:0${i % 2}`)
      const neighbour = { family: AF_INET, ifindex: index, destination, mac, state: NUD_NOARP }
      return newNeighbour(neighbour, NLM_F_CREATE | NLM_F_REPLACE)
    })
    for (const error of (await connection.batch(flood)).values()) throw error
    // While the agent is away the kernel asks, gives up after 3 s, and is asked again.
    const goOn = async (): Promise<void> => {
      await sleep(1000)
      agent.signal('SIGCONT')
    }
    const [answered] = await Promise.all([storm(host, WAITING, 200), goOn()])
    return answered
  } finally {
    agent.signal('SIGCONT')
  }
}
