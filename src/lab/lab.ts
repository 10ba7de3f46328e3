/** The life of a lab: built whole or not at all, found again by name, taken away whatever is left of it. */

import type { ChildProcess } from 'node:child_process'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { ipToNumber } from '../address/ip.ts'
import { type Prefix, prefixBase, prefixCovers, prefixLength } from '../address/prefix.ts'
import { type NetworkConfig, parseNetworkConfig } from '../config/network-config.ts'
import { SqliteRegistry } from '../lease/sqlite.ts'
import { startAgent, untilConnected } from './agent.ts'
import { attachContainer, buildUnderlay } from './build.ts'
import { lockLab } from './lock.ts'
import { removeLab } from './remove.ts'
import { checkKernel, checkMachine } from './requirements.ts'
import { type Lab, LABS_DIRECTORY, LabError, planLab } from './topology.ts'

export interface LabOptions {
  /** The network config. */
  readonly config: string
  /** The words that start tweed: `node src/main.ts`. */
  readonly program: readonly string[]
  readonly signal: AbortSignal
  /** Hears what is being done. */
  readonly tell: (line: string) => void
}

/** Builds a lab that stays when this process ends. @throws Nothing is left of the lab then. */
export async function labUp(lab: Lab, { config, program, signal, tell }: LabOptions): Promise<void> {
  await onCleanGround(lab, tell, async () => {
    tell(`the underlay 192.168.1.0/24 with ${lab.hosts.map(({ name }) => name).join(', ')}`)
    await buildUnderlay(lab)
    signal.throwIfAborted()
    await seedRegistry(lab, config)
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
  const { hosts } = JSON.parse(text) as { readonly hosts: number }
  return planLab(name, hosts)
}

/** Puts the network config, and a reservation for each host whose subnet the config has. */
export async function seedRegistry(lab: Lab, config: string): Promise<void> {
  const registry = new SqliteRegistry(lab.registryPath)
  try {
    await registry.putConfig(config)
    const parsed = parseNetworkConfig(config)
    for (const { subnet, publicIp } of lab.hosts) {
      if (canLease(parsed, subnet)) await registry.reserve(subnet, publicIp)
    }
  } finally {
    await registry.close()
  }
}

/** Puts another network config into the registry of a lab. Agents take it up when they start. */
export async function putConfig(lab: Lab, config: string): Promise<void> {
  const registry = new SqliteRegistry(lab.registryPath)
  try {
    await registry.putConfig(config)
  } finally {
    await registry.close()
  }
}

/** One agent on each host, in the order of the hosts, all in sync with each other. @throws {LabError} */
export async function startAgents(
  lab: Lab,
  program: readonly string[],
  signal: AbortSignal,
): Promise<ChildProcess[]> {
  const agents = await Promise.all(lab.hosts.map((host) => startAgent(lab, host, program, signal)))
  await untilConnected(lab, signal)
  return agents
}

function canLease(config: NetworkConfig, subnet: Prefix): boolean {
  const range = config.ranges.inet
  if (range === undefined) return false
  const base = ipToNumber(prefixBase(subnet))
  return (
    range.subnetLength === prefixLength(subnet) &&
    prefixCovers(range.network, subnet) &&
    base >= ipToNumber(range.subnetMin) &&
    base <= ipToNumber(range.subnetMax)
  )
}

/** Written last and in one step: a lab without it is one whose building did not end. */
async function mark({ name, hosts }: Lab): Promise<void> {
  const path = markPath(name)
  await writeFile(`${path}.new`, JSON.stringify({ hosts: hosts.length }))
  await rename(`${path}.new`, path)
}

function markPath(name: string): string {
  return join(LABS_DIRECTORY, name, 'lab.json')
}
