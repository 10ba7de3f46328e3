/** The agent's command line: flanneld's flags, and a few of tweed's own, as settings that are checked. */

import { AddressError, type Ip, ipFamily, parseIp } from '../address/ip.ts'
import { FlagError, type FlagTable, formatFlags, parseFlags } from '../config/flags.ts'
import type { InterfaceChoice } from '../kernel/host.ts'
import { parseRegistryAddress } from '../lease/registry.ts'
import { SqliteRegistry } from '../lease/sqlite.ts'

const FLAGS = {
  registry: {
    kind: 'string',
    default: 'sqlite:/var/lib/tweed/registry.db',
    help: 'where leases are kept: sqlite:PATH',
  },
  iface: {
    kind: 'string',
    default: '',
    help: 'external interface, by name or IP; else that of -public-ip or of the default route',
    repeatable: true,
  },
  'iface-regex': {
    kind: 'string',
    default: '',
    help: 'external interface, by a regular expression for its IP or name; tried after -iface',
    repeatable: true,
  },
  'iface-can-reach': {
    kind: 'string',
    default: '',
    help: 'external interface: the one through which this IP is reached',
  },
  'public-ip': {
    kind: 'string',
    default: '',
    help: 'IP that other hosts send to; else the address of the interface',
  },
  'subnet-file': {
    kind: 'string',
    default: '/run/flannel/subnet.env',
    help: 'file for the subnet, network and MTU; the status socket stands beside it',
  },
  'healthz-ip': { kind: 'string', default: '0.0.0.0', help: 'IP of the health server' },
  'healthz-port': { kind: 'integer', default: '0', help: 'port of the health server; 0: none' },
  'subnet-lease-renew-margin': {
    kind: 'integer',
    default: '60',
    help: 'minutes before its end that the lease is renewed, 1 to 1439',
  },
  'lease-grace': {
    kind: 'integer',
    default: '300',
    help: 'seconds that leases are kept which a replaced registry lacks',
  },
  help: { kind: 'boolean', default: 'false', help: 'print this help' },
} as const satisfies FlagTable

export interface Settings {
  readonly registry: SqliteRegistry
  readonly interface: InterfaceChoice
  readonly subnetFile: string
  readonly healthz: { readonly host: string; readonly port: number } | undefined
  /** Milliseconds. */
  readonly grace: number
}

const MINUTE = 60_000

/** Undefined when the help was asked for, and printed. @throws {FlagError} {@link RegistryError} */
export function readSettings(argv: readonly string[]): Settings | undefined {
  const flags = parseFlags(FLAGS, argv)
  if (flags.boolean('help')) {
    process.stdout.write(`Usage: tweed agent [flags]\n${formatFlags(FLAGS)}`)
    return undefined
  }
  const port = within('healthz-port', flags.integer('healthz-port'), 0, 65535)
  const margin = within('subnet-lease-renew-margin', flags.integer('subnet-lease-renew-margin'), 1, 1439)
  return {
    registry: new SqliteRegistry(parseRegistryAddress(flags.text('registry')).path, {
      renewMargin: margin * MINUTE,
    }),
    interface: {
      ifaces: flags.all('iface'),
      regexes: flags.all('iface-regex').map(toRegex),
      canReach: toIp('iface-can-reach', flags.text('iface-can-reach')),
      publicIp: toIp('public-ip', flags.text('public-ip')),
    },
    subnetFile: flags.text('subnet-file'),
    healthz: port === 0 ? undefined : { host: flags.text('healthz-ip'), port },
    grace: within('lease-grace', flags.integer('lease-grace'), 0, 86_400) * 1000,
  }
}

/** IPv4 only, for now. */
function toIp(name: string, text: string): Ip | undefined {
  try {
    const ip = text === '' ? undefined : parseIp(text)
    if (ip === undefined || ipFamily(ip) === 'inet') return ip
    throw new FlagError(`flag -${name} is ${ip}: it must be an IPv4 address`)
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

function within(name: string, value: number, min: number, max: number): number {
  if (value >= min && value <= max) return value
  throw new FlagError(`flag -${name} is ${value}: it must be a whole number from ${min} to ${max}`)
}
