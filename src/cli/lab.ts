/** `tweed lab`: several hosts on this machine, in network namespaces, for as long as one wants. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { constants } from 'node:os'
import { Option } from 'commander'
import { AddressError, type Family, type Ip, parseIp } from '../address/ip.ts'
import { readSubnetFile } from '../config/subnet-file.ts'
import { hostStatus } from '../lab/agent.ts'
import { findLab, labDown, labUp } from '../lab/lab.ts'
import { formatPingResult, formatReply, ping } from '../lab/ping.ts'
import {
  containerAddresses,
  findNamespace,
  type Lab,
  LAB_FAMILIES,
  LAB_REGISTRIES,
  LabError,
  type LabFamily,
  type LabHost,
  type LabRegistry,
  MAX_HOSTS,
  planLab,
} from '../lab/topology.ts'
import { AgentUnreachable } from '../status/client.ts'
import { readConfigFile } from './config-file.ts'
import { untilInterrupted } from './interrupt.ts'
import { createProgram, integer, runProgram } from './program.ts'
import { ownProgram } from './self.ts'
import { isInSync } from './status.ts'
import { formatTable } from './table.ts'

const DEFAULT_NAME = 'lab'
const DEFAULT_CONFIGS = {
  inet: '{"Network": "10.10.0.0/16", "Backend": {"Type": "vxlan"}}',
  inet6:
    '{"EnableIPv4": false, "EnableIPv6": true, "IPv6Network": "fd00:10:10::/48", "Backend": {"Type": "vxlan"}}',
  dual: '{"Network": "10.10.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:10::/48", "Backend": {"Type": "vxlan"}}',
} as const satisfies Record<LabFamily, string>

interface Named {
  readonly name: string
}

export async function runLab(argv: readonly string[]): Promise<void> {
  const program = createProgram(
    'tweed lab',
    'hosts, agents and containers in network namespaces of this machine',
  )
  program.enablePositionalOptions()
  const command = (name: string, description: string) =>
    program.command(name).description(description).option('--name <name>', 'of the lab', DEFAULT_NAME)
  command('up', 'build a lab and leave it running')
    .option('--hosts <number>', `1 to ${MAX_HOSTS}`, integer(1, MAX_HOSTS), 2)
    .addOption(registryOption())
    .addOption(
      new Option('--family <family>', 'which addresses hosts and containers have')
        .choices(LAB_FAMILIES)
        .default('inet'),
    )
    .option('--config <file>', `the network config, else ${DEFAULT_CONFIGS.inet}, or the like for the family`)
    .action(up)
  command('status', 'its hosts, and whether they are in sync').action(status)
  command('exec', 'run a command inside a host or container')
    .argument('<where>', 'host-A, c1, …')
    .argument('<command...>')
    .passThroughOptions()
    .action(exec)
  command('ping', 'ping from a host or container')
    .argument('<from>', 'host-A, c1, …')
    .argument('<to>', 'host-B, c2, … or an address')
    .option('-c, --count <number>', 'of packets', integer(1, 1_000_000), 4)
    .option('-6', 'over IPv6 in a lab that has both families')
    .option('-i, --interval <ms>', 'milliseconds between packets', integer(1, 60_000), 1000)
    .action(runPing)
  command('down', 'take it away, whatever is left of it').action(down)
  await runProgram(program, argv)
}

/** `--registry`: where the hosts of a lab keep their leases. */
export function registryOption(): Option {
  const option = new Option('--registry <kind>', 'where leases are kept; etcd must be installed')
  return option.choices(LAB_REGISTRIES).default('sqlite')
}

interface UpOptions extends Named {
  readonly hosts: number
  readonly registry: LabRegistry
  readonly family: LabFamily
  readonly config?: string
}

async function up({ name, hosts, registry, family, config: file }: UpOptions): Promise<void> {
  const lab = planLab(name, hosts, registry, family)
  const config = file === undefined ? DEFAULT_CONFIGS[family] : await readConfigFile(file)
  await untilInterrupted((signal) => labUp(lab, { config, program: ownProgram(), signal, tell }))
  const option = name === DEFAULT_NAME ? '' : ` --name ${name}`
  tell(`lab ${name} is up, its files and logs are in ${lab.directory}; now try`)
  tell(`  tweed lab status${option}`)
  tell(
    `  tweed lab exec${option} host-A -- bridge fdb show dev ${family === 'inet6' ? 'flannel-v6.1' : 'flannel.1'}`,
  )
  if (hosts > 1) tell(`  tweed lab ping${option} c1 c2`)
  if (hosts > 1 && family === 'dual') tell(`  tweed lab ping${option} -6 c1 c2`)
  tell(`  tweed lab down${option}`)
}

async function down({ name }: Named): Promise<void> {
  const removed = await labDown(name)
  tell(removed.length === 0 ? `there was no lab ${name}` : `lab ${name} is gone`)
}

async function status({ name }: Named): Promise<void> {
  const lab = await requireLab(name)
  const rows = await Promise.all(lab.hosts.map(hostRow))
  tell(formatTable(['HOST', 'PUBLIC IP', 'SUBNET', 'CONTAINER', 'ADDRESS', 'AGENT'], rows))
  process.exitCode = rows.every((row) => row.at(-1) === IN_SYNC) ? 0 : 1
}

const IN_SYNC = 'in sync'

async function hostRow(host: LabHost): Promise<string[]> {
  const subnets = Object.values(await readSubnetFile(host.subnetFile))
  const addresses = subnets.map((subnet) => containerAddresses(subnet).container)
  return [
    host.name,
    Object.values(host.publicIps).join(' '),
    subnets.join(' ') || '-',
    host.container.name,
    addresses.join(' ') || '-',
    await agentState(host),
  ]
}

async function agentState(host: LabHost): Promise<string> {
  try {
    const answer = await hostStatus(host)
    return isInSync(answer) ? IN_SYNC : `not in sync: tweed status --subnet-file ${host.subnetFile}`
  } catch (error) {
    if (error instanceof AgentUnreachable) return `does not answer: see ${host.logFile}`
    throw error
  }
}

async function exec(where: string, words: readonly string[], { name }: Named): Promise<void> {
  const { path } = findNamespace(await requireLab(name), where)
  const command = words[0] === '--' ? words.slice(1) : words
  const child = spawn('nsenter', [`--net=${path}`, ...command], { stdio: 'inherit' })
  // Ctrl-C is for the command, which decides what it means.
  const ignore = (): undefined => undefined
  process.on('SIGINT', ignore)
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null]
  process.off('SIGINT', ignore)
  process.exitCode = code ?? 128 + (signal === null ? 0 : constants.signals[signal])
}

interface PingOptions extends Named {
  readonly count: number
  /** Milliseconds. */
  readonly interval: number
  readonly 6?: true
}

async function runPing(
  from: string,
  to: string,
  { name, count, interval, 6: ipv6 }: PingOptions,
): Promise<void> {
  const lab = await requireLab(name)
  const { path: netns } = findNamespace(lab, from)
  const destination = await findAddress(lab, to, ipv6 || lab.family === 'inet6' ? 'inet6' : 'inet')
  const result = await untilInterrupted((signal) => {
    const options = { netns, destination, count, interval, timeout: 1000, signal }
    return ping(options, (reply) => tell(formatReply(reply)))
  })
  for (const line of formatPingResult(result)) tell(line)
  process.exitCode = result.sent > 0 && result.lost.length === 0 ? 0 : 1
}

/** Of a host its public IP, of a container its address in the overlay. @throws {LabError} */
async function findAddress(lab: Lab, name: string, family: Family): Promise<Ip> {
  for (const host of lab.hosts) {
    const publicIp = host.publicIps[family]
    if (publicIp === undefined) throw new LabError(`lab ${lab.name} has no addresses of that family`)
    if (host.name === name) return publicIp
    if (host.container.name !== name) continue
    const subnet = (await readSubnetFile(host.subnetFile))[family]
    if (subnet === undefined) throw new LabError(`${host.name} has leased no subnet: see ${host.logFile}`)
    return containerAddresses(subnet).container
  }
  try {
    return parseIp(name)
  } catch (error) {
    if (error instanceof AddressError)
      throw new LabError(`${name} is neither in lab ${lab.name} nor an address`)
    throw error
  }
}

/** @throws {LabError} */
async function requireLab(name: string): Promise<Lab> {
  const lab = await findLab(name)
  if (lab === undefined)
    throw new LabError(`lab ${name} is not up: \`tweed lab up --name ${name}\` builds it`)
  return lab
}

function tell(line: string): void {
  process.stdout.write(`${line}\n`)
}
