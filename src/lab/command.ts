/** Programs of the system, run to their end. The lab is built with `ip` and `bridge`, so that it reads as one would type it. */

import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'

/** A command that failed. The message is the command as one would type it, and what it said. */
export class CommandError extends Error {
  override readonly name = 'CommandError'
  /** The exit code; undefined when the program could not be started or was killed. */
  readonly exitCode: number | undefined
  readonly stderr: string

  constructor(command: string, exitCode: number | undefined, stderr: string) {
    super(`${command}: ${stderr.trim() || `exit code ${exitCode}`}`)
    this.exitCode = exitCode
    this.stderr = stderr.trim()
  }
}

/** Gives what the program printed. @throws {CommandError} */
export async function run(program: string, args: readonly string[], input = ''): Promise<string> {
  const child = spawn(program, args, { stdio: 'pipe' })
  const exit = new Promise<number | undefined>((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve(code ?? undefined))
  })
  // A program that ends before it has read its input is judged by its exit code.
  child.stdin.on('error', () => undefined).end(input)
  const command = [program, ...args].join(' ')
  try {
    const [code, stdout, stderr] = await Promise.all([exit, text(child.stdout), text(child.stderr)])
    if (code === 0) return stdout
    throw new CommandError(command, code, stderr)
  } catch (error) {
    if (error instanceof CommandError) throw error
    throw new CommandError(command, undefined, (error as Error).message)
  }
}

/** `ip -n NAMESPACE …`, words apart by one space. @throws {CommandError} */
export function ip(namespace: string, words: string): Promise<string> {
  return run('ip', ['-n', namespace, ...words.split(' ')])
}

/** `bridge -n NAMESPACE …` @throws {CommandError} */
export function bridge(namespace: string, words: string): Promise<string> {
  return run('bridge', ['-n', namespace, ...words.split(' ')])
}

/** Many `ip` commands in one process, up to the first that fails. @throws {CommandError} which names that one. */
export async function ipBatch(namespace: string, commands: readonly string[]): Promise<void> {
  try {
    await run('ip', ['-n', namespace, '-batch', '-'], `${commands.join('\n')}\n`)
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    const failed = commands[Number(/^Command failed -:(\d+)$/m.exec(error.stderr)?.[1]) - 1]
    if (failed === undefined) throw error
    const reason = error.stderr.replace(/^Command failed .*$/m, '')
    throw new CommandError(`ip -n ${namespace} ${failed}`, error.exitCode, reason)
  }
}
