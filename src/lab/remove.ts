/**
 * Taking a lab away, whatever is left of it. The names of its namespaces and the processes inside them are the only
 * record: the kernel keeps it, also when the process that built the lab was killed half-way.
 */

import { readdir, rm, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { run } from './command.ts'
import { LABS_DIRECTORY, LabError, NAMESPACES, namespacePrefix } from './topology.ts'

const KILL_TIMEOUT = 5000

/** Ends what runs in the lab's namespaces, deletes them and the lab's files. Gives the names of the namespaces. */
export async function removeLab(name: string): Promise<string[]> {
  const namespaces = await labNamespaces(name)
  await endProcesses(namespaces)
  // Links go with their namespace. One that somebody else has just deleted is no failure.
  for (const namespace of namespaces) {
    await run('ip', ['netns', 'delete', namespace]).catch(async (error: unknown) => {
      if ((await labNamespaces(name)).includes(namespace)) throw error
    })
  }
  await rm(join(LABS_DIRECTORY, name), { recursive: true, force: true })
  return namespaces
}

/** The namespaces whose names say that they are of this lab. */
export async function labNamespaces(lab: string): Promise<string[]> {
  const prefix = namespacePrefix(lab)
  const names = await entries(NAMESPACES)
  return names.filter((name) => name.startsWith(prefix))
}

/** Agents are found by where they are and not by a remembered pid, which may be another process by now. */
async function endProcesses(namespaces: readonly string[]): Promise<void> {
  const deadline = performance.now() + KILL_TIMEOUT
  for (;;) {
    const pids = await processesIn(namespaces)
    if (pids.length === 0) return
    if (performance.now() > deadline) throw new LabError(`processes ${pids.join(', ')} do not end`)
    for (const pid of pids) kill(pid)
    await sleep(10)
  }
}

async function processesIn(namespaces: readonly string[]): Promise<number[]> {
  const paths = namespaces.map((namespace) => join(NAMESPACES, namespace))
  const ours = new Set(await Promise.all(paths.map(identity)))
  const pids: number[] = []
  for (const pid of (await entries('/proc')).map(Number)) {
    if (!Number.isInteger(pid) || pid === process.pid) continue
    const namespace = await identity(`/proc/${pid}/ns/net`)
    if (namespace !== undefined && ours.has(namespace)) pids.push(pid)
  }
  return pids
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** What tells one namespace from another; undefined when there is none, as of a process that has ended. */
async function identity(path: string): Promise<string | undefined> {
  try {
    const { dev, ino } = await stat(path)
    return `${dev} ${ino}`
  } catch {
    return undefined
  }
}

/** The names in a directory; none when it does not exist. */
async function entries(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}
