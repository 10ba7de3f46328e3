/** The life of a lab: built whole or not at all, found again by name, taken away whatever is left of it. */

import type { ChildProcess } from 'node:child_process'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ipFamily } from '../address/ip.ts'
import { prefixOf } from '../address/prefix.ts'
import { startAgent, untilConnected } from './agent.ts'
import { attachContainer, buildUnderlay } from './build.ts'
import { lockLab } from './lock.ts'
import { type Program, seedRegistry } from './registry.ts'
import { removeLab } from './remove.ts'
import { checkKernel, checkMachine } from './requirements.ts'
import {
  type Lab,
  type LabFamily,
  type LabRegistry,
  LABS_DIRECTORY,
  LabError,
  planLab,
  UNDERLAY_LENGTHS,
} from './topology.ts'

export interface LabOptions {
  /** The network config. */
  readonly config: string
  readonly program: Program
  readonly signal: AbortSignal
  /** Hears what is being done. */
  readonly tell: (line: string) => void
}

/** Builds a lab that stays when this process ends. @throws Nothing is left of the lab then. */
export async function labUp(lab: Lab, { config, program, signal, tell }: LabOptions): Promise<void> {
  await onCleanGround(lab, tell, async () => {
    tell(`the underlay ${underlayNetworks(lab)} with ${lab.hosts.map(({ name }) => name).join(', ')}`)
    await buildUnderlay(lab)
    signal.throwIfAborted()
    await seedRegistry(lab, config, program)
    tell('an agent on each host')
    await startAgents(lab, program, signal)
    tell('a container on each host')
    for (const host of lab.hosts) await attachContainer(host)
    signal.throwIfAborted()
    await mark(lab)
  })
}

/** The names of the namespaces that were deleted. @throws {LabError} while the lab is being built. */
export async function labDown(name: string): Promise<string[]> {
  await checkMachine()
  const lock = await lockLab(name)
  try {
    return await removeLab(name)
  } finally {
    lock.release()
  }
}

/**
 * Runs `build` while nobody else is at work on the lab, with the remains of one that crashed taken away before it. What
 * it has built when it throws is taken away too.
 */
export async function onCleanGround(
  lab: Lab,
  tell: (line: string) => void,
  build: () => Promise<void>,
): Promise<void> {
  await checkMachine()
  const lock = await lockLab(lab.name)
  try {
    if ((await findLab(lab.name)) !== undefined) {
      throw new LabError(`lab ${lab.name} is up already: \`tweed lab down --name ${lab.name}\` takes it away`)
    }
    const remains = await removeLab(lab.name)
    if (remains.length > 0) tell(`took away what was left of a lab of that name: ${remains.join(', ')}`)
    try {
      await checkKernel(lab.name)
      await mkdir(lab.directory, { recursive: true })
      await build()
    } catch (error) {
      await removeLab(lab.name)
      throw error
    }
  } finally {
    lock.release()
  }
}

/** The lab of that name if it is up. */
export async function findLab(name: string): Promise<Lab | undefined> {
  const text = await readFile(markPath(name), 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'ENOENT') throw error
  })
  if (text === undefined) return undefined
  const { hosts, registry, family } = JSON.parse(text) as Marked
  return planLab(name, hosts, registry, family)
}

/** One agent on each host, in the order of the hosts, all in sync with each other. @throws {LabError} */
export async function startAgents(lab: Lab, program: Program, signal: AbortSignal): Promise<ChildProcess[]> {
  const agents = await Promise.all(lab.hosts.map((host) => startAgent(lab, host, program, signal)))
  await untilConnected(lab, signal)
  return agents
}

/** What else than its name a lab is planned from. */
interface Marked {
  readonly hosts: number
  readonly registry: LabRegistry
  readonly family: LabFamily
}

/** Written last and in one step: a lab without it is one whose building did not end. */
async function mark({ name, hosts, registry, family }: Lab): Promise<void> {
  const marked: Marked = { hosts: hosts.length, registry, family }
  const path = markPath(name)
  await writeFile(`${path}.new`, JSON.stringify(marked))
  await rename(`${path}.new`, path)
}

function underlayNetworks({ hosts: [host] }: Lab): string {
  const networks = Object.values(host?.publicIps ?? {}).map((ip) =>
    prefixOf(ip, UNDERLAY_LENGTHS[ipFamily(ip)]),
  )
  return networks.join(' and ')
}

function markPath(name: string): string {
  return join(LABS_DIRECTORY, name, 'lab.json')
}
