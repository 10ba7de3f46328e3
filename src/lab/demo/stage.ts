/** What every act plays with, and the few moves that more than one of them makes. */

import type { ChildProcess } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import type { Ip } from '../../address/ip.ts'
import { parseMac, type Mac } from '../../address/mac.ts'
import { ip } from '../command.ts'
import { startAgents } from '../lab.ts'
import { type PingResult, ping } from '../ping.ts'
import type { Program } from '../registry.ts'
import { containerAddresses, type Lab, type LabHost, type Namespace } from '../topology.ts'
import type { Narrator } from './narrator.ts'

export interface Stage {
  readonly lab: Lab
  readonly hostA: LabHost
  readonly hostB: LabHost
  readonly narrator: Narrator
  readonly program: Program
  readonly signal: AbortSignal
}

/** Shows that the agents start, and waits until they know each other. Gives them in the order of the hosts. */
export async function startBoth({ lab, narrator, program, signal }: Stage): Promise<ChildProcess[]> {
  narrator.say('The agents start.')
  const start = performance.now()
  const agents = await startAgents(lab, program, signal)
  narrator.check(`both are ready and know each other after ${milliseconds(performance.now() - start)}`, true)
  return agents
}

/** 10.10.10.2, 10.10.11.2. */
export function containerIp({ subnet }: LabHost): Ip {
  return containerAddresses(subnet).container
}

export async function linkMac({ namespace }: Namespace, link: string): Promise<Mac> {
  const [found] = JSON.parse(await ip(namespace, `-j link show dev ${link}`)) as {
    readonly address: string
  }[]
  return parseMac(found?.address ?? '')
}

/** One echo, waited for as long as a person would. */
export function pingOnce(
  { signal }: Stage,
  from: Namespace,
  destination: Ip,
  onSent: (at: number) => void = () => undefined,
): Promise<PingResult> {
  return ping({ netns: from.path, destination, count: 1, interval: 0, timeout: 3000, onSent, signal })
}

/** `0.241 ms` */
export function milliseconds(duration: number): string {
  return `${duration.toFixed(duration < 10 ? 3 : 0)} ms`
}

/** The last words of each agent that ever ran. */
export async function logLines(lab: Lab): Promise<string[]> {
  const lines: string[] = []
  for (const { name, logFile } of lab.hosts) {
    const log = await readFile(logFile, 'utf8').catch(() => '')
    if (log !== '') lines.push(`the log of the agent of ${name}:`, ...log.trimEnd().split('\n').slice(-10))
  }
  return lines
}
