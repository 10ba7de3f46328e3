/** The packet filter's programs, run to their end. Words are passed as they are: there is no shell. */

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

/** A program that failed; the message is what it said. */
export class CommandError extends Error {
  override readonly name = 'CommandError'
  /** There is no such program on this machine. */
  readonly missing: boolean

  constructor(message: string, missing: boolean) {
    super(message)
    this.missing = missing
  }
}

/** A rule set with tens of thousands of services has some ten megabytes. */
const MAX_OUTPUT = 1 << 30
/** No program here has that much to do: one that hangs is ended. Milliseconds. */
const TIMEOUT = 30_000
/** nsenter's exit code when the program that it should become is not there. */
const NOT_FOUND = 127

const execute = promisify(execFile)

/**
 * Gives what the program printed. `netns` is the path of a network namespace to run it in. @throws {CommandError}
 */
export async function run(
  netns: string | undefined,
  program: string,
  args: readonly string[],
  input = '',
): Promise<string> {
  const [file, ...words] =
    netns === undefined ? [program, ...args] : ['nsenter', `--net=${netns}`, program, ...args]
  const env = { ...process.env, LC_ALL: 'C' }
  try {
    const running = execute(file ?? program, words, { env, maxBuffer: MAX_OUTPUT, timeout: TIMEOUT })
    // A program that ends before it has read its input is judged by its exit code.
    running.child.stdin?.on('error', () => undefined).end(input)
    return (await running).stdout
  } catch (error) {
    const { code, killed, stderr, message } = error as ExecError
    if (code === 'ENOENT' || (netns !== undefined && code === NOT_FOUND)) {
      throw new CommandError(`the program ${program} is missing`, true)
    }
    const what = killed === true ? `no end after ${TIMEOUT / 1000} s` : stderr?.trim() || message
    throw new CommandError(`${program}: ${what}`, false)
  }
}

/** What `execFile` adds to an error. */
interface ExecError extends Error {
  /** The exit code, or the errno's name of a start that failed. */
  readonly code?: number | string
  readonly killed?: boolean
  readonly stderr?: string
}
