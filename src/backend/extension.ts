/**
 * The extension backend: an operator's commands do what other backends ask of the kernel. This file is what they are
 * called with; `extension-commands.ts` runs them.
 *
 * There is no shell. A command is split at white space once, when the config is read; `$NAME` and `${NAME}` in a word
 * then become the value of that variable, whatever it holds, and a word stays one argument. Values are addresses and
 * prefixes that were parsed. What peers say of themselves (BackendData) reaches a command on its standard input alone.
 */

import { isDeepStrictEqual } from 'node:util'
import type { PerFamily } from '../address/ip.ts'
import { ConfigError, type NetworkConfig } from '../config/network-config.ts'
import type { Lease } from '../lease/lease.ts'
import { type Backend, familiesOf, type HostFacts, NOTHING, type Verdict } from './backend.ts'
import { judgeReachable } from './host-gw.ts'
import { scopeOf } from './links.ts'

/** The program and its arguments, before variables are replaced. */
export type Command = readonly string[]

/** flannel's settings. One that is absent or empty is not run. */
export interface ExtensionCommands {
  readonly PreStartupCommand: Command
  readonly PostStartupCommand: Command
  readonly SubnetAddCommand: Command
  readonly SubnetRemoveCommand: Command
  readonly ShutdownCommand: Command
}

/** A command's own variables: `SUBNET`. Those of a family that is not there are empty. */
export type Variables = Readonly<Record<string, string>>

const PEER_VARIABLES = ['SUBNET', 'PUBLIC_IP', 'IPV6SUBNET', 'PUBLIC_IPV6']
const OWN_VARIABLES = ['NETWORK', ...PEER_VARIABLES]

/** Longest BackendData that is published or believed. Bytes. */
export const MAX_DATA = 64 * 1024

/** What a line-oriented command could take for something else, or a terminal obey: all but tabs and line feeds. */
const UNPRINTABLE = /(?![\t\n])[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u

const VARIABLE = /\$(?:\{([^}]*)\}|([A-Za-z_][A-Za-z0-9_]*))/g

/** Words that mean something to a shell alone: `;`, `&&`, `2>/dev/null`, `$(…)`. */
const SHELL_WORD = /^(?:&&?|\|\|?|;+|[0-9&]*[<>].*)$|;$|`|\$\(/

/** @throws {ConfigError} */
export function readCommands({ backend: { settings } }: NetworkConfig): ExtensionCommands {
  const read = (field: keyof ExtensionCommands, variables: readonly string[]): Command =>
    splitCommand(`Backend.${field}`, settings.string(field, ''), variables)
  return {
    PreStartupCommand: read('PreStartupCommand', []),
    PostStartupCommand: read('PostStartupCommand', OWN_VARIABLES),
    SubnetAddCommand: read('SubnetAddCommand', PEER_VARIABLES),
    SubnetRemoveCommand: read('SubnetRemoveCommand', PEER_VARIABLES),
    ShutdownCommand: read('ShutdownCommand', OWN_VARIABLES),
  }
}

/** @param variables The names that it may use. @throws {ConfigError} for what only a shell would understand. */
export function splitCommand(field: string, text: string, variables: readonly string[]): Command {
  const words = text.split(/\s+/).filter((word) => word !== '')
  for (const [index, word] of words.entries()) {
    const fault = wordFault(word, index === 0, variables)
    if (fault !== undefined) throw new ConfigError(field, text, fault)
  }
  return words
}

/** Each word as it is given to the program. A variable that the command does not have cannot be named in it. */
export function expand(command: Command, variables: Variables): string[] {
  return command.map((word) =>
    word.replaceAll(
      VARIABLE,
      (_, braced: string | undefined, bare: string | undefined) => variables[braced ?? bare ?? ''] ?? '',
    ),
  )
}

/** For PostStartupCommand and ShutdownCommand. */
export function ownVariables({ ranges }: NetworkConfig, lease: Lease): Variables {
  return { NETWORK: ranges.inet?.network ?? '', ...peerVariables(lease) }
}

/** For SubnetAddCommand and SubnetRemoveCommand. */
export function peerVariables({ subnets, publicIps }: Lease): Variables {
  return {
    SUBNET: subnets.inet ?? '',
    PUBLIC_IP: publicIps.inet ?? '',
    IPV6SUBNET: subnets.inet6 ?? '',
    PUBLIC_IPV6: publicIps.inet6 ?? '',
  }
}

/** For the standard input of SubnetAddCommand and SubnetRemoveCommand: the peer's data and a line feed. */
export function peerInput({ backendData: { inet, inet6 } }: Lease): string {
  const data = inet ?? inet6
  return `${typeof data === 'string' ? data : ''}\n`
}

/** Whether commands would be called in the same way for both. */
export function sameCall(a: Lease, b: Lease): boolean {
  return peerInput(a) === peerInput(b) && isDeepStrictEqual(peerVariables(a), peerVariables(b))
}

/** Why it cannot be BackendData; undefined when it can. */
export function dataFault(data: unknown): string | undefined {
  if (data === undefined) return undefined
  if (typeof data !== 'string') return `it is ${typeof data}, not a string`
  if (Buffer.byteLength(data) > MAX_DATA) return `it is longer than ${MAX_DATA} bytes`
  const [char] = UNPRINTABLE.exec(data) ?? []
  if (char === undefined) return undefined
  return `it holds the character U+${char.codePointAt(0)?.toString(16).toUpperCase().padStart(4, '0')}`
}

/** @param data What PreStartupCommand printed; undefined without such a command. */
export function planExtension(
  config: NetworkConfig,
  host: HostFacts,
  data: string | undefined,
): Omit<Backend, 'companion'> {
  const families = familiesOf(config.ranges)
  return {
    type: 'extension',
    leaseType: 'extension',
    mac: {},
    mtu: host.external.mtu,
    scope: scopeOf(host, config),
    needsUnderlay: false,
    advertised: data === undefined ? {} : advertise(config, data),
    judge(lease): Verdict {
      const { inet, inet6 } = lease.backendData
      const fault = dataFault(inet ?? inet6)
      return fault === undefined
        ? judgeReachable(lease, families)
        : { refused: `BackendData cannot be used: ${fault}` }
    },
    own: () => NOTHING,
    peer: () => NOTHING,
  }
}

/** flannel has one BackendData for both families. */
function advertise({ ranges }: NetworkConfig, data: string): PerFamily<unknown> {
  return ranges.inet === undefined ? { inet6: data } : { inet: data }
}

function wordFault(word: string, isProgram: boolean, variables: readonly string[]): string | undefined {
  if (/\p{Cc}/u.test(word)) return 'it holds a control character'
  if (SHELL_WORD.test(word)) {
    return `${JSON.stringify(word)} means something to a shell alone, and there is none: put it into a script`
  }
  const rest = word.replaceAll(VARIABLE, '')
  if (rest.includes('${')) return `${JSON.stringify(word)} has a \${ without its }`
  for (const [used, braced, bare] of word.matchAll(VARIABLE)) {
    if (isProgram) return `the program must be named, not be the value of ${used}`
    if (!variables.includes(braced ?? bare ?? '')) return `it has no ${used}; ${namesOf(variables)}`
  }
  return undefined
}

function namesOf(variables: readonly string[]): string {
  return variables.length === 0 ? 'it has no variables' : `allowed are $${variables.join(', $')}`
}
