/** Where flannel keeps what, and how it reads as a registry's entries. */

import { posix } from 'node:path'
import type { PerFamily } from '../../address/ip.ts'
import type { Prefix } from '../../address/prefix.ts'
import type { Entry } from '../entries.ts'
import { formatLeaseKey } from '../lease.ts'
import type { Span } from './follow.ts'
import type { Stored } from './range.ts'

/** A lease as text, and the key of etcd behind it. */
export interface EtcdEntry extends Entry {
  readonly stored: Stored
}

export interface Keys {
  readonly config: Span
  readonly subnets: Span
  readonly keyOf: (subnets: PerFamily<Prefix>) => string
  /** The keys of a host that has the same IPv4 subnet, whatever its IPv6 subnet is. */
  readonly rivalsOf: (subnets: PerFamily<Prefix>) => Span
  /** What lies under `subnets`, the oldest first. */
  readonly entries: (stored: Iterable<Stored>) => EtcdEntry[]
  /** What changed there, by the entries' keys. */
  readonly changes: (
    changes: ReadonlyMap<string, Stored | undefined>,
  ) => ReadonlyMap<string, EtcdEntry | undefined>
  readonly entryOf: (stored: Stored) => EtcdEntry
  /** Whether a key stands under `subnets`. */
  readonly isLease: (key: string) => boolean
}

/**
 * @param prefix `/coreos.com/network`
 * @param ttl Of a lease, in milliseconds. When a lease expires is etcd's to say, for one lease a call. Nothing here
 *   depends on it but what people are shown, and every host writes its key when it renews: so it is taken to last
 *   from when its last write was seen. That is never too short.
 */
export function keysUnder(prefix: string, ttl: number): Keys {
  // As flannel does: slashes too many do not matter.
  const subnets = `${posix.join(prefix, 'subnets')}/`
  const keyOf = (each: PerFamily<Prefix>): string => subnets + formatLeaseKey(each)
  const entryOf = (stored: Stored): EtcdEntry => ({
    key: stored.key.slice(subnets.length),
    value: stored.value,
    expires: stored.lease === 0n ? undefined : stored.seen + ttl,
    created: stored.created,
    stored,
  })
  const isLease = (key: string): boolean => key.startsWith(subnets)
  return {
    config: { from: posix.join(prefix, 'config') },
    subnets: keysFrom(subnets),
    keyOf,
    rivalsOf: ({ inet, inet6 }) =>
      inet === undefined ? { from: keyOf({ ...(inet6 && { inet6 }) }) } : keysFrom(keyOf({ inet })),
    entryOf,
    isLease,
    entries: (stored) =>
      [...stored]
        .filter(({ key }) => isLease(key))
        .map(entryOf)
        .sort((a, b) => a.created - b.created),
    changes: (changes) =>
      new Map(
        [...changes]
          .filter(([key]) => isLease(key))
          .map(([key, stored]) => [key.slice(subnets.length), stored && entryOf(stored)]),
      ),
  }
}

/** All keys that begin with the text. */
function keysFrom(text: string): Span {
  const last = text.charCodeAt(text.length - 1)
  return { from: text, to: text.slice(0, -1) + String.fromCharCode(last + 1) }
}
