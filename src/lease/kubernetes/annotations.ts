/** The annotations of a node in which flannel keeps its lease: their names, and what we write there. */

import { FAMILIES, type Family } from '../../address/ip.ts'
import { goJson, type LeaseAttributes } from '../lease.ts'
import { RegistryError } from '../registry.ts'

/** flannel's default. */
export const DEFAULT_PREFIX = 'flannel.alpha.coreos.com'

/** What a host publishes. */
export const PUBLISHED = [
  'kube-subnet-manager',
  'backend-type',
  'backend-data',
  'backend-v6-data',
  'public-ip',
  'public-ipv6',
] as const
export type Published = (typeof PUBLISHED)[number]

/** What an operator says to the host. */
export const ORDERS = [
  'public-ip-overwrite',
  'public-ipv6-overwrite',
  'node-public-ip',
  'node-public-ipv6',
] as const

export type AnnotationName = Published | (typeof ORDERS)[number]

/** Without the prefix. */
export type Annotations = Readonly<Partial<Record<AnnotationName, string>>>

/** The annotations of one family. */
export const OF_FAMILY = {
  inet: {
    data: 'backend-data',
    publicIp: 'public-ip',
    overwrite: 'public-ip-overwrite',
    wanted: 'node-public-ip',
  },
  inet6: {
    data: 'backend-v6-data',
    publicIp: 'public-ipv6',
    overwrite: 'public-ipv6-overwrite',
    wanted: 'node-public-ipv6',
  },
} as const satisfies Record<Family, Record<string, AnnotationName>>

/** The value of `kube-subnet-manager` on nodes that have a lease. */
export const MANAGED = 'true'

/** What stands before each name: `org.com/` for `org.com`, `org.com/prefix-` for `org.com/prefix`. @throws {RegistryError} */
export function annotationPrefix(text: string): string {
  const parts = text.split('/').length
  if (parts > 2) throw new RegistryError('invalid', 'subnet/kube: prefix can contain at most single slash')
  const path = parts === 1 ? `${text}/` : text
  const prefix = /[/-]$/.test(path) ? path : `${path}-`
  if (/^(?:[a-z0-9_-]+\.)+[a-z0-9_-]+\/(?:[a-z0-9_-]+-)?$/.test(prefix)) return prefix
  throw new RegistryError('invalid', 'subnet/kube: prefix must be in a format: fqdn/[0-9a-z-_]*')
}

/**
 * What must change until the node says what the host publishes: null removes. An overwrite is published as it stands;
 * a backend without data publishes `null`, and a family that the host has not is not published.
 */
export function missing(
  { publicIps, backendType, backendData }: LeaseAttributes,
  found: Annotations,
): Partial<Record<Published, string | null>> {
  const wanted = new Map<Published, string | undefined>([
    ['kube-subnet-manager', MANAGED],
    ['backend-type', backendType],
  ])
  for (const family of FAMILIES) {
    const { data, publicIp, overwrite } = OF_FAMILY[family]
    const ip = publicIps[family]
    wanted.set(data, ip && goJson(backendData[family] ?? null))
    wanted.set(publicIp, ip && (found[overwrite] || ip))
  }
  const changes: Partial<Record<Published, string | null>> = {}
  for (const [name, value] of wanted) if (found[name] !== value) changes[name] = value ?? null
  return changes
}
