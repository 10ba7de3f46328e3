/** `tweed agent`: the flags of the agent and its life as a process. */

import { mkdir } from 'node:fs/promises'
import { dirname } from 'node:path'
import { AddressError, type Ip, parseIp } from '../address/ip.ts'
import { runAgent as run } from '../agent.ts'
import { FlagError, type FlagTable, formatFlags, parseFlags } from '../config/flags.ts'
import { parseRegistryAddress, RegistryError } from '../lease/registry.ts'
import { SqliteRegistry } from '../lease/sqlite.ts'
import { createLogger, type Logger } from '../log.ts'
import { statusSocketPath } from '../status/client.ts'
import { serve } from '../status/http.ts'
import { Journal } from '../status/journal.ts'
import { VERSION } from '../version.ts'

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

interface Settings {
  readonly registry: SqliteRegistry
  readonly iface: string | undefined
  readonly publicIp: Ip | undefined
  readonly subnetFile: string
  readonly healthz: { readonly host: string; readonly port: number } | undefined
  readonly grace: number
}

const MINUTE = 60_000

/** Exit status: 0 after SIGTERM or SIGINT, 1 on what an operator must mend, 2 for a wrong command line. */
export async function runAgent(argv: readonly string[]): Promise<number> {
  let settings: Settings | undefined
  try {
    settings = readSettings(argv)
  } catch (error) {
    if (!(error instanceof FlagError || error instanceof AddressError || error instanceof RegistryError))
      throw error
    process.stderr.write(`tweed agent: ${error.message}\n`)
    return 2
  }
  if (settings === undefined) return 0
  const log = createLogger(process.stderr.isTTY)
  try {
    await runUntilSignal(settings, log)
    return 0
  } catch (error) {
    log.fatal({ err: error }, error instanceof Error ? error.message : String(error))
    return 1
  }
}

async function runUntilSignal(settings: Settings, log: Logger): Promise<void> {
  const { registry, subnetFile, healthz } = settings
  const stop = new AbortController()
  for (const name of ['SIGTERM', 'SIGINT'] as const) {
    process.once(name, () => {
      log.info(`${name}: stopping; the data plane stays in place`)
      stop.abort()
    })
  }
  const journal = new Journal(log, VERSION, registry.name)
  await mkdir(dirname(subnetFile), { recursive: true, mode: 0o755 })
  const servers = [await serve(journal, { kind: 'socket', path: statusSocketPath(subnetFile) })]
  try {
    if (healthz !== undefined) servers.push(await serve(journal, { kind: 'port', ...healthz }))
    log.info({ version: VERSION, registry: registry.name }, 'tweed agent starts')
    await run(settings, journal, stop.signal)
  } finally {
    for (const server of servers) server.close().closeAllConnections()
    await registry.close()
  }
}

/** Undefined when the help was asked for, and printed. */
function readSettings(argv: readonly string[]): Settings | undefined {
  const flags = parseFlags(FLAGS, argv)
  if (flags.boolean('help')) {
    process.stdout.write(`Usage: tweed agent [flags]\n${formatFlags(FLAGS)}`)
    return undefined
  }
  const iface = flags.text('iface')
  const publicIp = flags.text('public-ip')
  const port = within('healthz-port', flags.integer('healthz-port'), 0, 65535)
  const margin = within('subnet-lease-renew-margin', flags.integer('subnet-lease-renew-margin'), 1, 1439)
  return {
    registry: new SqliteRegistry(parseRegistryAddress(flags.text('registry')).path, {
      renewMargin: margin * MINUTE,
    }),
    iface: iface === '' ? undefined : iface,
    publicIp: publicIp === '' ? undefined : parseIp(publicIp),
    subnetFile: flags.text('subnet-file'),
    healthz: port === 0 ? undefined : { host: flags.text('healthz-ip'), port },
    grace: within('lease-grace', flags.integer('lease-grace'), 0, 86_400) * 1000,
  }
}

function within(name: string, value: number, min: number, max: number): number {
  if (value >= min && value <= max) return value
  throw new FlagError(`flag -${name} is ${value}: it must be a whole number from ${min} to ${max}`)
}
