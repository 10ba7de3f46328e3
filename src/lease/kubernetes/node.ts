/**
 * A Node object, cut down to what a lease is made of. Whatever the API server sends is text that anybody may have
 * written: it is read by hand, and what is wrong with one node is that node's alone.
 */

import {
  AddressError,
  type Family,
  familyBits,
  type Ip,
  isUnspecified,
  type PerFamily,
} from '../../address/ip.ts'
import { type Prefix, parsePrefix, prefixFamily, prefixLength } from '../../address/prefix.ts'
import type { Entry } from '../entries.ts'
import { formatLeaseKey, type Lease, LeaseError, parseJson, readIp } from '../lease.ts'
import { type AnnotationName, type Annotations, MANAGED, OF_FAMILY } from './annotations.ts'

/** Its key is the name of the node, its value what of the node counts, as text: `NodeFacts`. */
export interface NodeEntry extends Entry {
  /** Another one when the node was deleted and made again. */
  readonly uid: string
}

export interface NodeFacts {
  readonly podCidrs: readonly string[]
  readonly annotations: Annotations
}

/** Of a node without a time of creation that can be read: no node is younger. */
const NEVER = Number.MAX_SAFE_INTEGER

/** A field of something that need not be an object. */
export function field(value: unknown, ...path: readonly string[]): unknown {
  let found = value
  for (const name of path) {
    if (typeof found !== 'object' || found === null || !Object.hasOwn(found, name)) return undefined
    found = Reflect.get(found, name)
  }
  return found
}

export function textField(value: unknown, ...path: readonly string[]): string | undefined {
  const found = field(value, ...path)
  return typeof found === 'string' ? found : undefined
}

/** Undefined for what has no name. @param names The annotations that count. */
export function readNode(
  node: unknown,
  prefix: string,
  names: readonly AnnotationName[],
): NodeEntry | undefined {
  const metadata = field(node, 'metadata')
  const key = textField(metadata, 'name')
  if (key === undefined || key === '') return undefined
  const created = Date.parse(textField(metadata, 'creationTimestamp') ?? '')
  const written = field(metadata, 'annotations')
  const annotations: Partial<Record<AnnotationName, string>> = {}
  for (const name of names) {
    const value = textField(written, prefix + name)
    if (value !== undefined) annotations[name] = value
  }
  const facts: NodeFacts = { podCidrs: readPodCidrs(field(node, 'spec')), annotations }
  return {
    key,
    value: JSON.stringify(facts),
    uid: textField(metadata, 'uid') ?? '',
    expires: undefined,
    created: Number.isNaN(created) ? NEVER : created,
  }
}

export function factsOf({ value }: NodeEntry): NodeFacts {
  return JSON.parse(value)
}

/** Whether a flanneld or tweed has said that it is there. */
export function isManaged(node: unknown, prefix: string): boolean {
  return textField(node, 'metadata', 'annotations', `${prefix}kube-subnet-manager`) === MANAGED
}

/** `podCIDRs`, which old servers do not have, or `podCIDR`. */
function readPodCidrs(spec: unknown): string[] {
  const several = field(spec, 'podCIDRs')
  const one = textField(spec, 'podCIDR')
  const texts: unknown[] = Array.isArray(several) && several.length > 0 ? several : [one]
  return texts.filter((text) => typeof text === 'string').filter((text) => text !== '')
}

/** The subnets that Kubernetes gave to the node: of each family, the first. @throws {LeaseError} */
export function podSubnets(node: string, podCidrs: readonly string[]): PerFamily<Prefix> {
  const quoted = JSON.stringify(node)
  if (podCidrs.length === 0) throw new LeaseError(`node ${quoted} pod cidr not assigned`)
  if (podCidrs.length > 2) {
    throw new LeaseError(`node ${quoted} pod cidrs should be IPv4/IPv6 only or dualstack`)
  }
  const subnets: Partial<Record<Family, Prefix>> = {}
  for (const text of podCidrs) {
    const subnet = readPodCidr(text)
    const family = prefixFamily(subnet)
    subnets[family] ??= subnet
  }
  return { ...(subnets.inet && { inet: subnets.inet }), ...(subnets.inet6 && { inet6: subnets.inet6 }) }
}

function readPodCidr(text: string): Prefix {
  try {
    const subnet = parsePrefix(text)
    if (prefixLength(subnet) < familyBits(prefixFamily(subnet))) return subnet
  } catch (error) {
    if (!(error instanceof AddressError)) throw error
  }
  throw new LeaseError(`podCIDR ${JSON.stringify(text)} is not a subnet`)
}

/** The lease that the node stands for, or the reason why there is none. */
export function decodeNode(entry: NodeEntry): Lease | string {
  const { podCidrs, annotations } = factsOf(entry)
  try {
    const subnets = podSubnets(entry.key, podCidrs)
    return {
      key: formatLeaseKey(subnets),
      subnets,
      publicIps: readPublicIps(annotations),
      backendType: annotations['backend-type'] ?? '',
      backendData: { ...readData(annotations, 'inet'), ...readData(annotations, 'inet6') },
      expires: undefined,
      created: entry.created,
      node: entry.key,
    }
  } catch (error) {
    if (error instanceof LeaseError) return error.message
    throw error
  }
}

/** @throws {LeaseError} */
function readPublicIps(annotations: Annotations): PerFamily<Ip> {
  const inet = readIp(annotations['public-ip'], 'public-ip', 'inet')
  const inet6 = readIp(annotations['public-ipv6'], 'public-ipv6', 'inet6')
  if (inet === undefined && inet6 === undefined) throw new LeaseError('public-ip is missing')
  // What flannel writes for a host without an IPv4 address.
  const hasInet = inet !== undefined && !(isUnspecified(inet) && inet6 !== undefined)
  return { ...(hasInet && { inet }), ...(inet6 !== undefined && { inet6 }) }
}

/** @throws {LeaseError} */
function readData(annotations: Annotations, family: Family): PerFamily<unknown> {
  const name = OF_FAMILY[family].data
  const value = parseJson(annotations[name] ?? 'null', name)
  return value === null ? {} : { [family]: value }
}
