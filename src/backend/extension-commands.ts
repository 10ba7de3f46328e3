/** The commands of the extension backend, run to their end: each is a program with its arguments, there is no shell. */

import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as sleep } from 'node:timers/promises'
import type { NetworkConfig } from '../config/network-config.ts'
import type { Lease, LeaseKey } from '../lease/lease.ts'
import { printable } from '../status/printable.ts'
import { BackendError, type BackendOpener, type Companion, type CompanionStep } from './backend.ts'
import {
  type Command,
  dataFault,
  type ExtensionCommands,
  expand,
  MAX_DATA,
  ownVariables,
  peerInput,
  peerVariables,
  planExtension,
  readCommands,
  sameCall,
  type Variables,
} from './extension.ts'
import { LeaseQueue } from './lease-queue.ts'

/** A command that has not ended by then is ended, with all that it started. Milliseconds. */
const TIMEOUT = 30_000
/** How long output is waited for that comes after the end of its program: a daemon may hold it open for ever. */
const LAST_OUTPUT = 200

export const extension: BackendOpener = {
  check(config, host) {
    readCommands(config)
    planExtension(config, host, undefined)
  },

  async open(config, host, signal) {
    const commands = readCommands(config)
    const plan = planExtension(config, host, undefined)
    const { PreStartupCommand: command } = commands
    const companion = new CommandCompanion(config, commands)
    if (command.length === 0) return { ...plan, companion }
    const data = await run({ command, variables: {}, input: '', signal })
    const fault = dataFault(data)
    if (fault !== undefined) {
      throw new BackendError(
        `the output of ${command.join(' ')} cannot be published as BackendData: ${fault}`,
      )
    }
    return { ...planExtension(config, host, data), companion }
  },
}

class CommandCompanion implements Companion {
  readonly #config: NetworkConfig
  readonly #commands: ExtensionCommands
  readonly #queue: LeaseQueue
  /** Ours, between `started` and `stopped`. */
  #lease: Lease | undefined

  constructor(config: NetworkConfig, commands: ExtensionCommands) {
    this.#config = config
    this.#commands = commands
    const tell = async (command: Command, lease: Lease, signal: AbortSignal): Promise<void> => {
      await run({ command, variables: peerVariables(lease), input: peerInput(lease), signal })
    }
    this.#queue = new LeaseQueue({
      kind: 'command',
      same: sameCall,
      add: (lease, signal) => tell(commands.SubnetAddCommand, lease, signal),
      remove: (lease, signal) => tell(commands.SubnetRemoveCommand, lease, signal),
    })
  }

  get failures(): ReadonlyMap<LeaseKey, string> {
    return this.#queue.failures
  }

  async started(lease: Lease, signal?: AbortSignal): Promise<void> {
    this.#lease = lease
    const { PostStartupCommand: command } = this.#commands
    await run({ command, variables: ownVariables(this.#config, lease), input: '', signal })
  }

  exchange(removed: readonly Lease[], added: readonly Lease[]): void {
    this.#queue.exchange(removed, added)
  }

  run(signal: AbortSignal): AsyncIterable<CompanionStep> {
    return this.#queue.run(signal)
  }

  /** What SubnetAddCommand made is ShutdownCommand's to keep or not. */
  async stopped(): Promise<void> {
    const lease = this.#lease
    if (lease === undefined) return
    this.#lease = undefined
    const { ShutdownCommand: command } = this.#commands
    await run({ command, variables: ownVariables(this.#config, lease), input: '', signal: undefined })
  }
}

export interface Call {
  /** An empty one succeeds. */
  readonly command: Command
  readonly variables: Variables
  readonly input: string
  readonly signal: AbortSignal | undefined
  /** Milliseconds. */
  readonly timeout?: number
}

/**
 * Gives what the command printed on both outputs, without white space at its ends: at most one byte more than BackendData
 * may have. @throws {BackendError}
 */
export async function run(call: Call): Promise<string> {
  const { command, variables, input, signal, timeout = TIMEOUT } = call
  const [program, ...args] = expand(command, variables)
  if (program === undefined) return ''
  const limit = AbortSignal.timeout(timeout)
  const ending = signal === undefined ? limit : AbortSignal.any([signal, limit])
  let output = ''
  let how: string
  try {
    const child = start(program, args, variables)
    // A command that ends before it has read its input is judged by its exit status.
    child.stdin?.on('error', () => undefined).end(input)
    const printed = collect(child)
    how = await ended(child, ending)
    output = await printed(LAST_OUTPUT)
  } catch (error) {
    how = startFault(program, error)
  }
  if (how === '') return output
  const why = limit.aborted ? `no end after ${timeout / 1000} s` : how
  throw new BackendError(
    `failed to run command: ${printable(command.join(' '))} Err: ${why} Output: ${printable(output)}`,
  )
}

/** In a process group of its own, so that what it starts can be ended with it. */
function start(program: string, args: readonly string[], variables: Variables): ChildProcess {
  return spawn(program, args, { env: { ...process.env, ...variables }, detached: true, stdio: 'pipe' })
}

/** How it ended, in Go's words; empty for success. Rejects when it could not be started. */
async function ended(child: ChildProcess, ending: AbortSignal): Promise<string> {
  const end = (): void => endGroup(child)
  ending.addEventListener('abort', end)
  if (ending.aborted) end()
  try {
    return await new Promise<string>((resolve, reject) => {
      child.once('error', reject)
      child.once('exit', (code, signal) => {
        if (signal !== null) resolve(`signal: ${signal}`)
        else resolve(code === 0 ? '' : `exit status ${code}`)
      })
    })
  } finally {
    ending.removeEventListener('abort', end)
  }
}

function startFault(program: string, error: unknown): string {
  if (!(error instanceof Error)) throw error
  const isMissing = 'code' in error && error.code === 'ENOENT'
  return isMissing ? `exec: ${JSON.stringify(program)}: executable file not found in $PATH` : error.message
}

function endGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return
  try {
    process.kill(-pid, 'SIGKILL')
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}

/**
 * Keeps what a child prints, in the order in which it comes. What it gives is called once the program has ended, and
 * waits so long for the outputs' own end.
 */
function collect(child: ChildProcess): (patience: number) => Promise<string> {
  const chunks: Buffer[] = []
  let room = MAX_DATA + 1
  const closed = new Promise((resolve) => child.once('close', resolve))
  const streams = [child.stdout, child.stderr]
  for (const stream of streams) {
    stream?.on('data', (chunk: Buffer) => {
      // What is too much is read, so that the program can go on, and forgotten.
      if (room > 0) chunks.push(chunk.subarray(0, room))
      room -= chunk.length
    })
  }
  return async (patience) => {
    await Promise.race([closed, sleep(patience)])
    for (const stream of streams) stream?.destroy()
    return Buffer.concat(chunks).toString('utf8').trim()
  }
}
