/** Runs `bin/tweed` as a user does, for the tests that look at it from outside. */

import { spawn } from 'node:child_process'
import { readdir, readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { run } from '../src/lab/command.ts'

export interface Outcome {
  /** Null when a signal ended it. */
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Running {
  readonly kill: (signal: NodeJS.Signals) => void
  /** Resolves when standard output contains the text; also when it ends without it. */
  readonly said: (words: string) => Promise<void>
  readonly outcome: Promise<Outcome>
}

const TWEED = fileURLToPath(new URL('../bin/tweed', import.meta.url))

export function startTweed(args: readonly string[], input = ''): Running {
  const child = spawn(TWEED, args, { stdio: 'pipe' })
  child.stdin.on('error', () => undefined).end(input)
  const code = new Promise<number | null>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', resolve)
  })
  const stdout = text(child.stdout)
  const stderr = text(child.stderr)
  const said = (words: string): Promise<void> =>
    new Promise((resolve) => {
      let heard = ''
      child.stdout.on('data', (chunk: Buffer) => {
        heard += chunk.toString()
        if (heard.includes(words)) resolve()
      })
      child.stdout.once('close', resolve)
    })
  return {
    kill: (signal) => void child.kill(signal),
    said,
    outcome: Promise.all([code, stdout, stderr]).then(([code, stdout, stderr]) => ({ code, stdout, stderr })),
  }
}

export function tweed(...args: readonly string[]): Promise<Outcome> {
  return startTweed(args).outcome
}

/** What a lab must never touch: the interfaces, IPv4 routes and rules of the machine. */
export async function machineState(): Promise<string> {
  const commands = [
    ['-o', 'link', 'show'],
    ['-o', '-4', 'address', 'show'],
    ['-4', 'route', 'show', 'table', 'all'],
    ['rule', 'show'],
    ['nexthop', 'show'],
  ]
  return (await Promise.all(commands.map((words) => run('ip', words)))).join('')
}

/** Namespaces, processes and directories whose names say that they are of that lab. */
export async function remains(lab: string): Promise<string[]> {
  const namespaces = (await list('/run/netns')).filter((name) => name.startsWith(`tweed-lab-${lab}-`))
  const directories = (await list('/run/tweed-lab')).filter((name) => name === lab)
  return [...namespaces, ...directories, ...(await processesThatName(`/run/tweed-lab/${lab}/`))]
}

async function processesThatName(path: string): Promise<string[]> {
  const found: string[] = []
  for (const pid of (await list('/proc')).filter((name) => /^\d+$/.test(name))) {
    const words = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')
    if (words.includes(path)) found.push(`${pid} ${words.replaceAll('\0', ' ')}`)
  }
  return found
}

async function list(directory: string): Promise<string[]> {
  try {
    return await readdir(directory)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return []
    throw error
  }
}
