/** A lease: one host's subnet and what its peers must know to reach it. */

import {
  AddressError,
  type Family,
  familyBits,
  type Ip,
  ipFamily,
  isUnspecified,
  type PerFamily,
  parseIp,
} from '../address/ip.ts'
import { type Prefix, prefixOf } from '../address/prefix.ts'

declare const leaseKeyBrand: unique symbol

/** The name of a lease in flannel's form: `10.5.34.0-24`, dual-stack `10.5.34.0-24&fd80:0:0:48::-64`. */
export type LeaseKey = string & { readonly [leaseKeyBrand]: true }

/** Text in a registry that is not a lease. The message names what is wrong with which value. */
export class LeaseError extends Error {
  override readonly name = 'LeaseError'
}

/** What a host publishes about itself (flannel's LeaseAttrs). */
export interface LeaseAttributes {
  readonly publicIps: PerFamily<Ip>
  /** `vxlan`, `host-gw` …; empty where flannel omits it (udp, alloc, a reservation nobody has claimed). */
  readonly backendType: string
  /** The JSON value of BackendData (inet) and BackendV6Data (inet6), as it came. */
  readonly backendData: PerFamily<unknown>
}

export interface Lease extends LeaseAttributes {
  readonly key: LeaseKey
  readonly subnets: PerFamily<Prefix>
  /** Milliseconds since the epoch; undefined for a reservation, which never expires. */
  readonly expires: number | undefined
  /** Order of creation in the registry: of two leases that contradict each other, the older one holds. */
  readonly created: number
  /** The node that it is of, in Kubernetes: there, that is the name of its entry. Elsewhere, the key is. */
  readonly node?: string
}

/** What a lease claims for itself alone: two that claim one name of a kind with different values contradict each other. */
export interface Claim {
  /** `VtepMAC` */
  readonly kind: string
  /** `02:4c:67:26:1e:a8` */
  readonly name: string
  /** `192.168.1.10` */
  readonly value: string
}

/** flannel's rule: it is searched for at the end of the key, so that the path before it does not matter. */
const KEY = /(?:^|\/)([0-9.]+)-([0-9]+)(?:&([a-f0-9:]+)-([0-9]+))?$/

/** Without IPv4, flannel writes the zero subnet there: its keys have no other form. */
const NO_IPV4 = '0.0.0.0-0'

/** The subnets that a key names, with or without the path before it; host bits are masked. @throws {LeaseError} */
export function parseLeaseKey(text: string): PerFamily<Prefix> {
  const [, ip, length, ip6, length6] = KEY.exec(text) ?? []
  if (ip === undefined || length === undefined) {
    throw new LeaseError(`${JSON.stringify(text)} is not a lease key such as 10.5.34.0-24`)
  }
  const inet = parseSubnet(text, ip, length, 'inet')
  if (ip6 === undefined || length6 === undefined) return { inet }
  const inet6 = parseSubnet(text, ip6, length6, 'inet6')
  return `${ip}-${length}` === NO_IPV4 ? { inet6 } : { inet, inet6 }
}

/** The one spelling that is written; registries compare keys byte by byte. */
export function formatLeaseKey({ inet, inet6 }: PerFamily<Prefix>): LeaseKey {
  const first = inet === undefined ? NO_IPV4 : inet.replace('/', '-')
  return (inet6 === undefined ? first : `${first}&${inet6.replace('/', '-')}`) as LeaseKey
}

/** flannel reads the length as 5 bits (IPv4) or 7 bits (IPv6): a whole address cannot be leased. */
function parseSubnet(key: string, ip: string, length: string, family: Family): Prefix {
  try {
    const bits = Number(length)
    const base = parseIp(ip)
    if (ipFamily(base) === family && bits < familyBits(family) && `${bits}` === length)
      return prefixOf(base, bits)
  } catch (error) {
    if (!(error instanceof AddressError)) throw error
  }
  throw new LeaseError(`${JSON.stringify(key)} is not a lease key: ${ip}-${length} is not a subnet`)
}

/** The value of a lease: byte for byte what flannel's Go encoder writes. */
export function encodeLeaseValue({ publicIps, backendType, backendData }: LeaseAttributes): string {
  return goJson({
    PublicIP: publicIps.inet ?? NO_PUBLIC_IP,
    PublicIPv6: publicIps.inet6 ?? null,
    BackendType: backendType === '' ? undefined : backendType,
    BackendData: backendData.inet ?? undefined,
    BackendV6Data: backendData.inet6 ?? undefined,
  })
}

/** A JSON value as Go's encoder writes it: these characters it never leaves as they are. */
export function goJson(value: unknown): string {
  return JSON.stringify(value).replace(
    /[<>&\u2028\u2029]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, '0')}`,
  )
}

/** What flannel writes for a host without an IPv4 address: PublicIP is never null. */
const NO_PUBLIC_IP = '0.0.0.0'

/** Keys in any case, other keys ignored, null is absent, as Go reads it. @throws {LeaseError} */
export function decodeLeaseValue(text: string): LeaseAttributes {
  const { publicip, publicipv6, backendtype = '', backenddata, backendv6data } = parseFields(text)
  if (typeof backendtype !== 'string') throw notA('BackendType', backendtype, 'a string')
  const inet = readIp(publicip, 'PublicIP', 'inet')
  const inet6 = readIp(publicipv6, 'PublicIPv6', 'inet6')
  if (inet === undefined && inet6 === undefined) throw new LeaseError('PublicIP is missing')
  const hasInet = inet !== undefined && !(isUnspecified(inet) && inet6 !== undefined)
  return {
    publicIps: perFamily(hasInet ? inet : undefined, inet6),
    backendType: backendtype,
    backendData: perFamily(backenddata, backendv6data),
  }
}

function perFamily<T>(inet: T | undefined, inet6: T | undefined): PerFamily<T> {
  if (inet6 === undefined) return inet === undefined ? {} : { inet }
  return inet === undefined ? { inet6 } : { inet, inet6 }
}

/** Whether two sets of addresses are one host's. IPv4 decides when both have it: flannel compares nothing else. */
export function sameHost(a: PerFamily<Ip>, b: PerFamily<Ip>): boolean {
  if (a.inet !== undefined && b.inet !== undefined) return a.inet === b.inet
  return a.inet6 !== undefined && a.inet6 === b.inet6
}

/** A value's fields as they came; undefined for those that are absent or null. */
interface Fields {
  publicip: unknown
  publicipv6: unknown
  backendtype: unknown
  backenddata: unknown
  backendv6data: unknown
}

/** As flannel writes them, and in lower case. */
const FIELDS = new Map<string, keyof Fields>(
  ['PublicIP', 'PublicIPv6', 'BackendType', 'BackendData', 'BackendV6Data'].flatMap((name) => {
    const lower = name.toLowerCase() as keyof Fields
    return [
      [name, lower],
      [lower, lower],
    ] as const
  }),
)

/** Of one shape, whatever the value has. */
const NO_FIELDS: Fields = {
  publicip: undefined,
  publicipv6: undefined,
  backendtype: undefined,
  backenddata: undefined,
  backendv6data: undefined,
}

/** Of two spellings of one name, the last counts. */
function parseFields(text: string): Fields {
  const value = parseJson(text, 'the value') as Record<string, unknown> | null
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw notA('the value', value, 'a JSON object')
  }
  const fields: Fields = { ...NO_FIELDS }
  // What JSON makes has no keys but its own, and Object.entries would make an array for each.
  for (const key in value) {
    const name = FIELDS.get(key) ?? FIELDS.get(key.toLowerCase())
    if (name !== undefined && value[key] !== null) fields[name] = value[key]
  }
  return fields
}

/** Many more brackets than a value has. One within the other, `JSON.stringify` would not come to their end. */
const MOST_BRACKETS = 1000

/** @param what As errors name it. @throws {LeaseError} for what is no JSON, or could not be written as such again. */
export function parseJson(text: string, what: string): unknown {
  const isLong = text.length > MOST_BRACKETS
  if (isLong && (text.match(/[[{]/g)?.length ?? 0) > MOST_BRACKETS) {
    throw new LeaseError(`${what} has more than ${MOST_BRACKETS} brackets`)
  }
  try {
    return JSON.parse(text)
  } catch (error) {
    throw new LeaseError(`${what} is not JSON: ${(error as SyntaxError).message}`)
  }
}

/** Undefined for what is absent. @param field As errors name it. @throws {LeaseError} */
export function readIp(value: unknown, field: string, family: Family): Ip | undefined {
  if (value === undefined) return undefined
  try {
    const ip = typeof value === 'string' ? parseIp(value) : undefined
    if (ip !== undefined && ipFamily(ip) === family) return ip
  } catch (error) {
    if (!(error instanceof AddressError)) throw error
  }
  throw notA(field, value, family === 'inet' ? 'an IPv4 address' : 'an IPv6 address')
}

function notA(field: string, value: unknown, expected: string): LeaseError {
  return new LeaseError(`${field} is ${JSON.stringify(value)}, not ${expected}`)
}
