/** Whether the operator may reserve a subnet for a host: one rule for every registry. */

import { familyBits, type Ip, ipFamily } from '../address/ip.ts'
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
  subnet: Prefix,
  publicIp: Ip,
): Reservation<E> {
  const family = prefixFamily(subnet)
  if (ipFamily(publicIp) !== family || prefixLength(subnet) === familyBits(family)) {
    throw new RegistryError('invalid', `${subnet} cannot be reserved for ${publicIp}`)
  }
  const subnets = { [family]: subnet }
  const publicIps = { [family]: publicIp }
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
    if (!own) throw new RegistryError('conflict', `${subnet} overlaps ${entry.key}, ${holderOf(lease)}`)
    reservation = { attributes: lease, held: entry }
  }
  return reservation
}

function holderOf(lease: Lease | string): string {
  return typeof lease === 'string'
    ? `which cannot be read: ${lease}`
    : `the lease of ${Object.values(lease.publicIps).join(' and ')}`
}
