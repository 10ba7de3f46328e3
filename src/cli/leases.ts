/** `tweed leases`: who holds which subnet. */

import { AddressError, type Family, type Ip, ipFamily, type PerFamily, parseIp } from '../address/ip.ts'
import { type Prefix, parsePrefix, prefixFamily } from '../address/prefix.ts'
import type { Lease } from '../lease/lease.ts'
import { type LeaseRegistry, type LeaseSnapshot, RegistryError } from '../lease/registry.ts'
import { printable } from '../status/printable.ts'
import { argument, createProgram, runProgram } from './program.ts'
import { type RegistryOptions, useRegistry, withRegistry } from './registry.ts'
import { formatTable } from './table.ts'

export async function runLeases(argv: readonly string[]): Promise<void> {
  const program = createProgram('tweed leases', 'the leases and reservations of the network')
  const command = (name: string, description: string) =>
    withRegistry(program.command(name).description(description))
  withRegistry(program.command('list', { isDefault: true }).description('all of them, as a table'))
    .option('--json', 'for machines')
    .action(list)
  command('reserve', 'give a subnet for good to the host with that public IP')
    .argument(
      '<subnet>',
      'as in 10.10.10.0/24; with IPv6 10.10.10.0/24,fd00:10::/64',
      argument((text) => perFamily(text, parsePrefix, prefixFamily)),
    )
    .argument(
      '<public-ip>',
      'as in 192.168.1.10; with IPv6 192.168.1.10,fd00:192::10',
      argument((text) => perFamily(text, parseIp, ipFamily)),
    )
    .action(reserve)
  command('release', 'remove the lease or reservation of a subnet')
    .argument('<subnet>', 'as in 10.10.10.0/24', argument(parsePrefix))
    .action(release)
  await runProgram(program, argv)
}

async function list({ json, ...options }: RegistryOptions & { readonly json?: true }): Promise<void> {
  const { leases, malformed } = await useRegistry(options, firstSnapshot)
  const sorted = [...leases.values()].toSorted((a, b) => (a.key < b.key ? -1 : 1))
  if (json === true) {
    process.stdout.write(`${JSON.stringify(sorted.map(leaseJson), undefined, 2)}\n`)
  } else {
    const head = ['SUBNET', 'PUBLIC IP', 'BACKEND', 'EXPIRES', 'DATA']
    process.stdout.write(`${formatTable(head, sorted.map(leaseRow))}\n`)
  }
  for (const [key, reason] of malformed) {
    process.stderr.write(`tweed: ${printable(key)} is no lease: ${printable(reason)}\n`)
  }
}

/** One value, or one of each family with a comma between them. @throws {AddressError} */
function perFamily<T>(
  text: string,
  parse: (part: string) => T,
  familyOf: (value: T) => Family,
): PerFamily<T> {
  const values: Partial<Record<Family, T>> = {}
  for (const value of text.split(',').map(parse)) {
    const family = familyOf(value)
    if (values[family] !== undefined) throw new AddressError(`${text} has two of the same address family`)
    values[family] = value
  }
  return values
}

async function reserve(
  subnets: PerFamily<Prefix>,
  publicIps: PerFamily<Ip>,
  options: RegistryOptions,
): Promise<void> {
  await useRegistry(options, (registry) => registry.reserve(subnets, publicIps))
}

async function release(subnet: Prefix, options: RegistryOptions): Promise<void> {
  await useRegistry(options, (registry) => registry.release(subnet))
}

/** @throws {RegistryError} */
async function firstSnapshot(registry: LeaseRegistry): Promise<LeaseSnapshot> {
  for await (const event of registry.watch(new AbortController().signal)) {
    if (event.kind === 'snapshot') return event
    throw new RegistryError('unavailable', event.reason)
  }
  throw new RegistryError('unavailable', `${registry.name} gave no leases`)
}

function leaseRow({ subnets, publicIps, backendType, backendData, expires }: Lease): string[] {
  const data = [backendData.inet, backendData.inet6].filter((value) => value !== undefined)
  return [
    Object.values(subnets).join(' '),
    Object.values(publicIps).join(' '),
    printable(backendType) || '-',
    expires === undefined ? 'never' : new Date(expires).toISOString(),
    data.map((value) => printable(JSON.stringify(value))).join(' ') || '-',
  ]
}

/** A reservation, which never expires, has null; others have ISO 8601. */
function leaseJson({ subnets, publicIps, backendType, backendData, expires }: Lease): unknown {
  return {
    subnets,
    publicIps,
    backendType,
    backendData,
    expires: expires === undefined ? null : new Date(expires),
  }
}
