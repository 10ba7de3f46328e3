/** Whether the operator may reserve a subnet for a host: one rule for every registry. */

import { familyBits, type Ip, type PerFamily } from '../address/ip.ts'
import { type Prefix, prefixFamily, prefixLength } from '../address/prefix.ts'
import { type Entry, type Known, overlaps } from './entries.ts'
import { formatLeaseKey, type Lease, type LeaseAttributes, sameHost } from './lease.ts'
import { RegistryError } from './registry.ts'

export interface Reservation<E extends Entry> {
  /** What the host's entry says from now on: as before, if it has one. */
  readonly attributes: LeaseAttributes
  /** The lease of that subnet that the host has. */
  readonly held: E | undefined
}

/** @param known The entries in force. @throws {RegistryError} */
export function planReservation<E extends Entry>(
  known: Iterable<Known<E>>,
  subnets: PerFamily<Prefix>,
  publicIps: PerFamily<Ip>,
): Reservation<E> {
  const text = Object.values(subnets).join(' and ')
  if (!isPossible(subnets, publicIps)) {
    throw new RegistryError(
      'invalid',
      `${text} cannot be reserved for ${Object.values(publicIps).join(' and ')}`,
    )
  }
  let reservation: Reservation<E> = {
    attributes: { publicIps, backendType: '', backendData: {} },
    held: undefined,
  }
  for (const { entry, result: lease } of known) {
    if (!overlaps(entry, subnets)) continue
    const own =
      typeof lease !== 'string' &&
      lease.key === formatLeaseKey(subnets) &&
      sameHost(lease.publicIps, publicIps)
    if (!own) throw new RegistryError('conflict', `${text} overlaps ${entry.key}, ${holderOf(lease)}`)
    reservation = { attributes: lease, held: entry }
  }
  return reservation
}

/** A subnet for each public IP, and none that is a single address. */
function isPossible(subnets: PerFamily<Prefix>, publicIps: PerFamily<Ip>): boolean {
  const prefixes = Object.values(subnets)
  const fits = prefixes.every((subnet) => {
    const family = prefixFamily(subnet)
    return publicIps[family] !== undefined && prefixLength(subnet) < familyBits(family)
  })
  return fits && prefixes.length > 0 && prefixes.length === Object.values(publicIps).length
}

function holderOf(lease: Lease | string): string {
  return typeof lease === 'string'
    ? `which cannot be read: ${lease}`
    : `the lease of ${Object.values(lease.publicIps).join(' and ')}`
}
