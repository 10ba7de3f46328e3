/** What the admin commands share: commander for their arguments, exit codes, and one line for what can go wrong. */

import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { AddressError } from '../address/ip.ts'
import { DockerOptionsError } from '../config/docker-options.ts'
import { ConfigError } from '../config/network-config.ts'
import { CommandError } from '../lab/command.ts'
import { LabError } from '../lab/topology.ts'
import { LeaseError } from '../lease/lease.ts'
import { RegistryError } from '../lease/registry.ts'
import { AddonError } from '../native.ts'
import { AgentUnreachable } from '../status/client.ts'
import { Interrupted } from './interrupt.ts'

/** Failures that are not bugs: their message is for the person who typed the command. */
const EXPECTED = [
  AddonError,
  AddressError,
  AgentUnreachable,
  CommandError,
  ConfigError,
  DockerOptionsError,
  Interrupted,
  LabError,
  LeaseError,
  RegistryError,
]

export function createProgram(name: string, description: string): Command {
  return new Command(name).description(description).showHelpAfterError().exitOverride()
}

/** Sets the exit code: 2 for a command line that cannot be understood, 1 for what failed. Bugs are thrown on. */
export async function runProgram(program: Command, argv: readonly string[]): Promise<void> {
  try {
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError) {
      process.exitCode = error.exitCode === 0 ? 0 : 2
    } else if (isExpected(error)) {
      process.exitCode = error instanceof RegistryError && error.code === 'invalid' ? 2 : 1
      process.stderr.write(`tweed: ${error.message}\n`)
    } else {
      throw error
    }
  }
}

/** A parser of commander's, for an argument or option, out of one that throws an AddressError. */
export function argument<T>(parse: (text: string) => T): (text: string) => T {
  return (text) => {
    try {
      return parse(text)
    } catch (error) {
      if (error instanceof AddressError) throw new InvalidArgumentError(`${error.message}.`)
      throw error
    }
  }
}

/** A whole number from `min` to `max`, for commander. */
export function integer(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text)
    if (/^\d+$/.test(text) && value >= min && value <= max) return value
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`)
  }
}

/** Also what the system says of a file: `ENOENT: no such file or directory, open 'x'`. */
function isExpected(error: unknown): error is Error {
  if (!(error instanceof Error)) return false
  return EXPECTED.some((expected) => error instanceof expected) || 'syscall' in error
}
