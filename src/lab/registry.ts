/**
 * Where the hosts of a lab keep their leases: one SQLite file, or a real etcd in the namespace of the underlay. The
 * operator's part (config, reservations) is done on the first in this process, and on the second by `tweed` inside the
 * underlay, where etcd is.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Family, type Ip, ipFamily, ipToNumber, type PerFamily } from '../address/ip.ts'
import { type Prefix, prefixBase, prefixCovers, prefixFamily, prefixLength } from '../address/prefix.ts'
import { type NetworkConfig, parseNetworkConfig, type SubnetRange } from '../config/network-config.ts'
import { SqliteRegistry } from '../lease/sqlite.ts'
import { addAddress } from './build.ts'
import { CommandError, ip, run } from './command.ts'
import { type Lab, LabError, type LabHost, UNDERLAY_IP, UNDERLAY_IPV6, UNDERLAY_LENGTHS } from './topology.ts'

/** The words that start tweed: `node src/main.ts`. */
export type Program = readonly string[]

/** Where it listens for an IPv4 host; in a lab without IPv4, at the same port of the underlay's IPv6 address. */
export const ETCD_URL = `http://${UNDERLAY_IP}:2379`
const ETCD_URL_IPV6 = `http://[${UNDERLAY_IPV6}]:2379`
export const ETCD_PREFIX = '/flannel/network'
const ETCD_PATIENCE = 10_000

function etcdUrl({ family }: Lab): string {
  return family === 'inet6' ? ETCD_URL_IPV6 : ETCD_URL
}

/** The flags that name the registry, for the agent and for admin commands. */
export function registryFlags(lab: Lab): string[] {
  switch (lab.registry) {
    case 'sqlite':
      return [`--registry=sqlite:${lab.registryPath}`]
    case 'etcd':
      return [`--etcd-endpoints=${etcdUrl(lab)}`, `--etcd-prefix=${ETCD_PREFIX}`]
    default:
      return lab.registry satisfies never
  }
}

/** The config, and a reservation for each host whose subnet the config has. An etcd is started for it. */
export async function seedRegistry(lab: Lab, config: string, program: Program): Promise<void> {
  if (lab.registry === 'etcd') await startEtcd(lab)
  await putConfig(lab, config, program)
  const parsed = parseNetworkConfig(config)
  for (const host of lab.hosts) {
    const subnets = leasable(parsed, host)
    if (subnets !== undefined) await reserve(lab, subnets, host.publicIps, program)
  }
}

/** Agents that run take it up. */
export async function putConfig(lab: Lab, config: string, program: Program): Promise<void> {
  if (lab.registry === 'sqlite') return withFile(lab, (registry) => registry.putConfig(config))
  await tweed(lab, program, ['config', 'put'], ['-'], config)
}

async function reserve(
  lab: Lab,
  subnets: PerFamily<Prefix>,
  publicIps: PerFamily<Ip>,
  program: Program,
): Promise<void> {
  if (lab.registry === 'sqlite') {
    return withFile(lab, async (registry) => void (await registry.reserve(subnets, publicIps)))
  }
  const words = [subnets, publicIps].map((values) => Object.values(values).join(','))
  await tweed(lab, program, ['leases', 'reserve'], words)
}

async function withFile(lab: Lab, work: (registry: SqliteRegistry) => Promise<void>): Promise<void> {
  const registry = new SqliteRegistry(lab.registryPath)
  try {
    await work(registry)
  } finally {
    await registry.close()
  }
}

async function tweed(
  lab: Lab,
  program: Program,
  command: readonly string[],
  args: readonly string[],
  input = '',
): Promise<void> {
  const words = [`--net=${lab.underlay.path}`, ...program, ...command, ...registryFlags(lab), ...args]
  await run('nsenter', words, input)
}

export function etcdDirectory(lab: Lab): string {
  return join(lab.directory, 'etcd')
}

/** It ends with the lab, whose processes are those in its namespaces. @throws {LabError} */
export async function startEtcd(lab: Lab): Promise<ChildProcess> {
  const address = lab.family === 'inet6' ? UNDERLAY_IPV6 : UNDERLAY_IP
  await ip(lab.underlay.namespace, addAddress(address, UNDERLAY_LENGTHS[ipFamily(address)], 'br0'))
  const log = await open(join(lab.directory, 'etcd.log'), 'a')
  const words = [
    `--net=${lab.underlay.path}`,
    'etcd',
    `--data-dir=${etcdDirectory(lab)}`,
    `--listen-client-urls=${etcdUrl(lab)}`,
    `--advertise-client-urls=${etcdUrl(lab)}`,
    '--listen-peer-urls=http://127.0.0.1:2380',
  ]
  const child = spawn('nsenter', words, { detached: true, stdio: ['ignore', log.fd, log.fd] })
  const ended = once(child, 'exit')
  child.unref()
  await log.close()
  await untilListening(lab, ended)
  return child
}

/** @throws {LabError} */
async function untilListening(lab: Lab, ended: Promise<unknown[]>): Promise<void> {
  let hasEnded = false
  void ended.then(() => {
    hasEnded = true
  })
  const deadline = performance.now() + ETCD_PATIENCE
  while (!(await isListening(lab))) {
    if (hasEnded) throw new LabError('etcd does not start: is it installed? (apt-get install etcd-server)')
    if (performance.now() > deadline)
      throw new LabError(`etcd does not listen after ${ETCD_PATIENCE / 1000} s`)
    await sleep(50)
  }
}

async function isListening(lab: Lab): Promise<boolean> {
  const address = lab.family === 'inet6' ? UNDERLAY_IPV6 : UNDERLAY_IP
  const script = `exec 3<>/dev/tcp/${address}/2379`
  try {
    await run('nsenter', [`--net=${lab.underlay.path}`, 'bash', '-c', script])
    return true
  } catch (error) {
    if (error instanceof CommandError) return false
    throw error
  }
}

/** The subnets of the host in the families of the config; undefined when it has another network. */
function leasable({ ranges }: NetworkConfig, host: LabHost): PerFamily<Prefix> | undefined {
  const subnets: Partial<Record<Family, Prefix>> = {}
  for (const range of Object.values(ranges)) {
    const family = prefixFamily(range.network)
    const subnet = host.subnets[family]
    if (subnet === undefined || !canLease(range, subnet)) return undefined
    subnets[family] = subnet
  }
  return subnets
}

function canLease(range: SubnetRange, subnet: Prefix): boolean {
  const base = ipToNumber(prefixBase(subnet))
  return (
    range.subnetLength === prefixLength(subnet) &&
    prefixCovers(range.network, subnet) &&
    base >= ipToNumber(range.subnetMin) &&
    base <= ipToNumber(range.subnetMax)
  )
}
