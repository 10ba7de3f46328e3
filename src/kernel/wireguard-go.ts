/** wireguard-go, which is WireGuard where the kernel has none: a process for each device, with a TUN link. */

import { execFile } from 'node:child_process'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** Milliseconds until it is in the background. */
const TIMEOUT = 10_000

/** There is nothing on this machine that could be the device. */
export class NoWireguard extends Error {
  override readonly name = 'NoWireguard'
}

export interface WireguardGoOptions {
  /** Where its sockets are, if not in /var/run/wireguard. */
  readonly folder?: string | undefined
  /** What is run in front of it, `nsenter --mount=…`. */
  readonly prefix?: readonly string[] | undefined
}

/**
 * Starts it for a link that does not exist. It goes into the background with its socket open, and outlives us as the
 * kernel's device would; it ends with its link.
 *
 * @param netns Path of a network namespace; undefined for the process's own.
 * @throws {NoWireguard} if it is not installed; an error with its last words if it does not start.
 */
export async function startWireguardGo(
  link: string,
  netns: string | undefined,
  { prefix = [] }: WireguardGoOptions,
): Promise<void> {
  const enter = netns === undefined ? [] : ['nsenter', `--net=${netns}`]
  const [command, ...args] = [...prefix, ...enter, 'wireguard-go', link]
  // With a LOG_LEVEL it would keep our pipes, and end with them; with the other it would not go into the background.
  const { LOG_LEVEL: _level, WG_PROCESS_FOREGROUND: _foreground, ...env } = process.env
  try {
    await run(command, args, { timeout: TIMEOUT, env })
  } catch (error) {
    if (!(error instanceof Error)) throw error
    if ('code' in error && (error.code === 'ENOENT' || error.code === 127)) {
      throw new NoWireguard(
        `${link} cannot be made: the kernel has no WireGuard (module wireguard), and there is no wireguard-go in PATH`,
      )
    }
    throw new Error(`wireguard-go ${link} did not start: ${lastWords(error)}`, { cause: error })
  }
}

/** The last line that it wrote; what it writes first is a warning in a frame. */
function lastWords(error: Error): string {
  const said = ['stdout', 'stderr'].map((name) => textOf(error, name).trim().split('\n').at(-1) ?? '')
  return said.find((line) => line !== '') ?? error.message
}

function textOf(error: object, name: string): string {
  const value: unknown = Reflect.get(error, name)
  return typeof value === 'string' ? value : ''
}
