/** The agent's command line and environment as settings that are checked. */

import type { AgentOptions } from '../agent/join.ts'
import { AddressError, type Family, type Ip, ipFamily, type PerFamily, parseIp } from '../address/ip.ts'
import { FlagError, type Flags, formatFlags, parseFlags } from '../config/flags.ts'
import { AGENT_FLAGS, VARIABLE_PREFIX } from './agent-flags.ts'
import type { RegistryChoice } from './open-registry.ts'

export interface Settings {
  readonly agent: Omit<AgentOptions, 'registry'>
  readonly registry: RegistryChoice
  /** Before its end that the lease is renewed. Milliseconds. */
  readonly renewMargin: number
  /** Whether Kubernetes is told that our node has a network. */
  readonly setNetworkUnavailable: boolean
  readonly healthz: { readonly host: string; readonly port: number } | undefined
  readonly verbose: boolean
}

/** What was asked for instead of a run. */
export type Question = 'help' | 'version'

const KUBERNETES = 'kubernetes:'

const SECOND = 1000
const MINUTE = 60 * SECOND

/** @throws {FlagError} naming the flag or variable, its value and what is allowed. */
export function readSettings(
  argv: readonly string[],
  variables: Readonly<Record<string, string | undefined>>,
): Settings | Question {
  const asked = parseFlags(AGENT_FLAGS, argv)
  if (asked.boolean('help')) return 'help'
  if (asked.boolean('version')) return 'version'
  const flags = parseFlags(AGENT_FLAGS, argv, { prefix: VARIABLE_PREFIX, variables })
  const port = within(flags, 'healthz-port', 0, 65535)
  return {
    agent: readAgentOptions(flags),
    registry: readRegistry(flags),
    renewMargin: within(flags, 'subnet-lease-renew-margin', 1, 1439) * MINUTE,
    setNetworkUnavailable: flags.boolean('set-node-network-unavailable'),
    healthz: port === 0 ? undefined : { host: flags.text('healthz-ip'), port },
    verbose: flags.integer('v') > 0,
  }
}

export function formatHelp(): string {
  return `Usage: tweed agent [OPTION]...\n${formatFlags(AGENT_FLAGS)}`
}

type AgentFlags = Flags<typeof AGENT_FLAGS>

function readAgentOptions(flags: AgentFlags): Omit<AgentOptions, 'registry'> {
  return {
    interface: {
      ifaces: flags.all('iface'),
      regexes: flags.all('iface-regex').map(toRegex),
      canReach: toIp(flags, 'iface-can-reach', 'inet', 'inet6'),
      publicIps: toPublicIps(flags),
    },
    subnetFile: flags.text('subnet-file'),
    firewall: {
      masquerade: flags.boolean('ip-masq'),
      forward: flags.boolean('iptables-forward-rules'),
      randomFully: !flags.boolean('ip-masq-fully-random-disable'),
      interval: within(flags, 'iptables-resync', 1, 86_400) * SECOND,
    },
    blackhole: flags.boolean('ip-blackhole-route'),
    grace: within(flags, 'lease-grace', 0, 86_400) * SECOND,
  }
}

function readRegistry(flags: AgentFlags): RegistryChoice {
  return {
    registry: readRegistryAddress(flags),
    endpoints: flags.text('etcd-endpoints'),
    prefix: flags.text('etcd-prefix'),
    ca: flags.text('etcd-cafile'),
    cert: flags.text('etcd-certfile'),
    key: flags.text('etcd-keyfile'),
    user: flags.text('etcd-username'),
    password: flags.text('etcd-password'),
    kubernetes: {
      apiUrl: flags.text('kube-api-url'),
      kubeconfig: flags.text('kubeconfig-file'),
      annotationPrefix: flags.text('kube-annotation-prefix'),
      netConfig: flags.text('net-config-path'),
    },
  }
}

/** flanneld's flag for Kubernetes beside our own for any registry. */
function readRegistryAddress(flags: AgentFlags): string {
  const address = flags.text('registry')
  if (!flags.boolean('kube-subnet-mgr')) return address
  if (address === '' || address === KUBERNETES) return KUBERNETES
  throw new FlagError(`flag -kube-subnet-mgr is the same as -registry=${KUBERNETES}: leave -registry out`)
}

function toPublicIps(flags: AgentFlags): PerFamily<Ip> {
  const inet = toIp(flags, 'public-ip', 'inet')
  const inet6 = toIp(flags, 'public-ipv6', 'inet6')
  return { ...(inet !== undefined && { inet }), ...(inet6 !== undefined && { inet6 }) }
}

function toIp(
  flags: AgentFlags,
  name: 'iface-can-reach' | 'public-ip' | 'public-ipv6',
  ...allowed: readonly Family[]
): Ip | undefined {
  const text = flags.text(name)
  try {
    const ip = text === '' ? undefined : parseIp(text)
    if (ip === undefined || allowed.includes(ipFamily(ip))) return ip
    const wanted = allowed.includes('inet6') ? 'an IPv6 address' : 'an IPv4 address'
    throw new FlagError(`flag -${name} is ${ip}: it must be ${wanted}`)
  } catch (error) {
    if (error instanceof AddressError) throw new FlagError(`flag -${name}: ${error.message}`)
    throw error
  }
}

function toRegex(text: string): RegExp {
  try {
    return new RegExp(text)
  } catch (error) {
    throw new FlagError(`flag -iface-regex: ${(error as SyntaxError).message}`)
  }
}

function within(flags: AgentFlags, name: keyof typeof AGENT_FLAGS, min: number, max: number): number {
  const value = flags.integer(name)
  if (value >= min && value <= max) return value
  throw new FlagError(`flag -${name} is ${value}: it must be a whole number from ${min} to ${max}`)
}
