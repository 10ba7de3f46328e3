/** The agents of a lab: real processes, one in each host's network namespace. */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, open, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { AgentUnreachable, readStatus, statusSocketPath } from '../status/client.ts'
import type { Status } from '../status/status.ts'
import { type Program, registryFlags } from './registry.ts'
import { type Lab, LabError, type LabHost } from './topology.ts'

const TIMEOUT = 20_000
const STOP_TIMEOUT = 5000

/**
 * Starts the agent of a host and gives it when it is ready. It outlives this process.
 *
 * nsenter and not `ip netns exec`, which would hide /sys/fs/cgroup from it.
 * @throws {LabError} when it ends before it is ready.
 */
export async function startAgent(
  lab: Lab,
  host: LabHost,
  program: Program,
  signal: AbortSignal,
): Promise<ChildProcess> {
  await mkdir(dirname(host.subnetFile), { recursive: true })
  const log = await open(host.logFile, 'a')
  const words = [
    `--net=${host.path}`,
    ...program,
    'agent',
    ...registryFlags(lab),
    '--iface=eth0',
    // A fresh machine has no iptables, and a lab drops nothing.
    '--iptables-forward-rules=false',
    ...publicIpFlags(host),
    `--subnet-file=${host.subnetFile}`,
  ]
  const child = spawn('nsenter', words, { detached: true, stdio: ['ignore', log.fd, log.fd] })
  child.unref()
  const ended = new Promise<never>((_resolve, reject) => {
    child.once('error', reject)
    child.once('exit', () => reject(new LabError(`the agent of ${host.name} has ended`)))
  })
  const enough = new AbortController()
  const waiting = AbortSignal.any([signal, enough.signal])
  const ready = untilStatus(host, 'ready', (status) => status.ready, waiting)
  try {
    await Promise.race([ended, ready])
  } catch (error) {
    signal.throwIfAborted()
    throw new LabError(`${(error as Error).message}; its log:\n${await lastLines(host.logFile, 15)}`)
  } finally {
    enough.abort()
    await log.close()
  }
  return child
}

export function publicIpFlags({ publicIps: { inet, inet6 } }: LabHost): string[] {
  return [
    ...(inet === undefined ? [] : [`--public-ip=${inet}`]),
    ...(inet6 === undefined ? [] : [`--public-ipv6=${inet6}`]),
  ]
}

/** SIGTERM, as a service manager would. The data plane stays. */
export async function stopAgent(child: ChildProcess): Promise<void> {
  await end(child, 'SIGTERM')
}

/** SIGKILL: the agent has no chance to do anything. */
export async function killAgent(child: ChildProcess): Promise<void> {
  await end(child, 'SIGKILL')
}

export function hostStatus(host: LabHost): Promise<Status> {
  return readStatus(statusSocketPath(host.subnetFile))
}

async function end(child: ChildProcess, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return
  child.ref()
  const exit = once(child, 'exit', { signal: AbortSignal.timeout(STOP_TIMEOUT) })
  child.kill(signal)
  await exit
}

/** Waits until every agent has all the others as peers in sync. @throws {LabError} which says who has not. */
export async function untilConnected({ hosts }: Lab, signal: AbortSignal): Promise<void> {
  for (const host of hosts) {
    const isConnected = (status: Status): boolean =>
      status.peers.filter(({ state }) => state === 'in sync').length >= hosts.length - 1
    await untilStatus(host, 'in sync with all its peers', isConnected, signal)
  }
}

async function untilStatus(
  host: LabHost,
  state: string,
  matches: (status: Status) => boolean,
  signal: AbortSignal,
): Promise<void> {
  const deadline = performance.now() + TIMEOUT
  for (;;) {
    const status = await tryStatus(host)
    if (status !== undefined && matches(status)) return
    if (performance.now() > deadline) {
      throw new LabError(`the agent of ${host.name} is not ${state} after ${TIMEOUT / 1000} s`)
    }
    await sleep(20, undefined, { signal })
  }
}

/** Undefined while no agent answers. */
async function tryStatus(host: LabHost): Promise<Status | undefined> {
  try {
    return await hostStatus(host)
  } catch (error) {
    if (error instanceof AgentUnreachable) return undefined
    throw error
  }
}

async function lastLines(path: string, count: number): Promise<string> {
  return (await readFile(path, 'utf8')).trimEnd().split('\n').slice(-count).join('\n')
}
