/**
 * The network config: the JSON text that the operator writes into the registry, in flannel's format and with the
 * semantics of Go's JSON decoder (keys in any case, unknown keys ignored, null is absent, no conversion of types).
 */

import {
  AddressError,
  type Family,
  familyBits,
  type Ip,
  ipFromNumber,
  ipFamily,
  ipToNumber,
  isUnspecified,
  type PerFamily,
  parseIp,
} from '../address/ip.ts'
import {
  type Prefix,
  parsePrefix,
  prefixBase,
  prefixContains,
  prefixEnd,
  prefixFamily,
  prefixLength,
  prefixOf,
} from '../address/prefix.ts'

/** What may be leased in one family: the subnets of `subnetLength` whose base is in subnetMin … subnetMax. */
export interface SubnetRange {
  readonly network: Prefix
  readonly subnetLength: number
  /** Base address of the first subnet. */
  readonly subnetMin: Ip
  /** Base address of the last subnet. */
  readonly subnetMax: Ip
  /** Subnets are given and not chosen (Kubernetes' podCIDR): any in the network will do, and the rest says nothing. */
  readonly given?: true
}

export interface NetworkConfig {
  /** The enabled families: at least one. */
  readonly ranges: PerFamily<SubnetRange>
  readonly enableNftables: boolean
  readonly backend: BackendConfig
}

export interface BackendConfig {
  /** Lower case; `udp` when the config has no Backend at all, as in flannel (whose documentation says vxlan). */
  readonly type: string
  /** Everything in `Backend`, for the backend to read. */
  readonly settings: Settings
}

/** A JSON object with flannel's keys. Each reader throws a `ConfigError` when the value is of another type. */
export interface Settings {
  string<D extends string | undefined>(field: string, otherwise: D): string | D
  boolean<D extends boolean | undefined>(field: string, otherwise: D): boolean | D
  /** `min` and `max` are inclusive. */
  integer<D extends number | undefined>(field: string, allowed: IntegerSetting<D>): number | D
  object(field: string): Settings | undefined
}

export interface IntegerSetting<D extends number | undefined> {
  readonly min: number
  readonly max: number
  readonly default: D
}

/** A config that cannot be used. The message names the field, its value and what is allowed. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly field: string

  constructor(field: string, value: unknown, problem: string) {
    super(`${field} ${value === undefined ? 'is missing' : `is ${excerpt(value)}`}: ${problem}`)
    this.field = field
  }
}

/** @param given Whether subnets are given: then what the config says of their choice is not read. @throws {ConfigError} */
export function parseNetworkConfig(text: string, given = false): NetworkConfig {
  const settings = parseSettings(text)
  const ranges: Partial<Record<Family, SubnetRange>> = {}
  if (settings.boolean('EnableIPv4', true)) ranges.inet = readRange(settings, 'inet', given)
  if (settings.boolean('EnableIPv6', false)) ranges.inet6 = readRange(settings, 'inet6', given)
  if (ranges.inet === undefined && ranges.inet6 === undefined) {
    throw new ConfigError('EnableIPv4', false, 'EnableIPv4 or EnableIPv6 must be true')
  }
  const backend = settings.object('Backend')
  return {
    ranges,
    enableNftables: settings.boolean('EnableNFTables', false),
    backend: {
      type: backend === undefined ? 'udp' : backend.string('Type', '').toLowerCase(),
      settings: backend ?? settingsOf({}, 'Backend.'),
    },
  }
}

/** flannel's names and limits. The smallest useful network holds four subnets of the longest length. */
const FAMILIES = {
  inet: { prefix: '', usualLength: 24, longest: 30, example: '10.5.0.0/16' },
  inet6: { prefix: 'IPv6', usualLength: 64, longest: 126, example: 'fd00:5::/48' },
} as const satisfies Record<Family, unknown>

function readRange(settings: Settings, family: Family, given: boolean): SubnetRange {
  const { prefix, example } = FAMILIES[family]
  const field = `${prefix}Network`
  const value = settings.string(field, undefined)
  const network = attempt(() => parsePrefix(value ?? ''))
  if (network === undefined || prefixFamily(network) !== family) {
    const problem = `please define a correct ${field} parameter in the flannel config, such as "${example}"`
    throw new ConfigError(field, value, problem)
  }
  if (given) {
    const base = prefixBase(network)
    return { network, subnetLength: prefixLength(network), subnetMin: base, subnetMax: base, given }
  }
  const subnetLength = readSubnetLength(settings, network)
  const size = 1n << BigInt(familyBits(family) - subnetLength)
  const subnetMin = readBound(settings, 'SubnetMin', network, subnetLength)
  const subnetMax = readBound(settings, 'SubnetMax', network, subnetLength)
  const range = {
    network,
    subnetLength,
    subnetMin: subnetMin ?? ipFromNumber(ipToNumber(prefixBase(network)) + size, family),
    subnetMax: subnetMax ?? ipFromNumber(prefixEnd(network) + 1n - size, family),
  }
  if (ipToNumber(range.subnetMin) > ipToNumber(range.subnetMax)) {
    const problem = `it must not be after ${prefix}SubnetMax ${range.subnetMax}`
    throw new ConfigError(`${prefix}SubnetMin`, range.subnetMin, problem)
  }
  return range
}

/** The usual length, or four subnets in a network that is too small for it. 0 is flannel's "not given". */
function readSubnetLength(settings: Settings, network: Prefix): number {
  const { prefix, usualLength, longest } = FAMILIES[prefixFamily(network)]
  const field = `${prefix}SubnetLen`
  const shortest = prefixLength(network) + 2
  if (shortest > longest) {
    const problem = `network is too small. Minimum useful network prefix is /${longest - 2}`
    throw new ConfigError(`${prefix}Network`, network, problem)
  }
  const allowed = `; allowed is ${shortest} to ${longest}`
  const given = settings.integer(field, { min: 0, max: familyBits(prefixFamily(network)), default: 0 })
  if (given === 0) return Math.max(usualLength, shortest)
  if (given > longest)
    throw new ConfigError(field, given, `SubnetLen must be less than /${longest + 1}${allowed}`)
  if (given < shortest) {
    throw new ConfigError(field, given, `network must be able to accommodate at least four subnets${allowed}`)
  }
  return given
}

/** SubnetMin or SubnetMax; 0.0.0.0 and :: are flannel's "not given". */
function readBound(
  settings: Settings,
  name: 'SubnetMin' | 'SubnetMax',
  network: Prefix,
  subnetLength: number,
): Ip | undefined {
  const family = prefixFamily(network)
  const { prefix } = FAMILIES[family]
  const field = `${prefix}${name}`
  const value = settings.string(field, undefined)
  if (value === undefined) return undefined
  const ip = attempt(() => parseIp(value))
  if (ip === undefined || ipFamily(ip) !== family) {
    throw new ConfigError(field, value, `it must be an address in ${network}, without a length`)
  }
  if (isUnspecified(ip)) return undefined
  if (!prefixContains(network, ip)) {
    throw new ConfigError(field, value, `${field} is not in the range of the ${prefix}Network ${network}`)
  }
  const subnet = prefixOf(ip, subnetLength)
  if (prefixBase(subnet) !== ip) {
    const problem = `${field} is not on a SubnetLen boundary: the subnet that holds it is ${subnet}`
    throw new ConfigError(field, value, problem)
  }
  return ip
}

function parseSettings(text: string): Settings {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    // Both the text and the error would show what is in it, and a preshared key is nobody's to see.
    if (/psk/i.test(text)) throw new ConfigError('the network config', '(not shown)', 'it is not JSON')
    throw new ConfigError('the network config', text, `it is not JSON: ${(error as SyntaxError).message}`)
  }
  if (!isObject(value)) throw new ConfigError('the network config', value, 'it must be a JSON object')
  return settingsOf(value, '')
}

/** `path` stands before the field in an error: `Backend.`. */
function settingsOf(object: object, path: string): Settings {
  const values = new Map<string, unknown>()
  for (const [key, value] of Object.entries(object)) if (value !== null) values.set(key.toLowerCase(), value)
  const read = (field: string) => values.get(field.toLowerCase())
  return {
    string(field, otherwise) {
      const value = read(field)
      if (value === undefined) return otherwise
      if (typeof value === 'string') return value
      throw new ConfigError(path + field, value, 'it must be a string')
    },
    boolean(field, otherwise) {
      const value = read(field)
      if (value === undefined) return otherwise
      if (typeof value === 'boolean') return value
      throw new ConfigError(path + field, value, 'it must be true or false')
    },
    integer(field, { min, max, default: otherwise }) {
      const value = read(field)
      if (value === undefined) return otherwise
      if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
      throw new ConfigError(path + field, value, `it must be a whole number from ${min} to ${max}`)
    },
    object(field) {
      const value = read(field)
      if (value === undefined) return undefined
      if (isObject(value)) return settingsOf(value, `${path}${field}.`)
      throw new ConfigError(path + field, value, 'it must be an object')
    },
  }
}

function excerpt(value: unknown): string {
  const text = JSON.stringify(value)
  return text.length <= 80 ? text : `${text.slice(0, 80)}…`
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function attempt<T>(parse: () => T): T | undefined {
  try {
    return parse()
  } catch (error) {
    if (error instanceof AddressError) return undefined
    throw error
  }
}
