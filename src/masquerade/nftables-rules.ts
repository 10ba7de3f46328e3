/**
 * The rules as nftables says them. A table of ours is ours as a whole, so it is replaced as a whole, in one step, when
 * anything in it differs.
 *
 * They are written as text, because nft 1.0 drops comments on tables and chains from JSON; they are read as JSON and
 * compared expression by expression, because the text changes from version to version.
 *
 * Two things that flannel writes here are not repeated: it compares the whole mark instead of its bit, and its fourth
 * rule returns what the sixth is there to masquerade. And one cannot be had: an accept in our forward chain does not
 * overrule a drop in another table; in nftables every base chain has its say.
 */

import { isDeepStrictEqual } from 'node:util'
import type { Family } from '../address/ip.ts'
import { prefixBase, prefixLength } from '../address/prefix.ts'
import {
  type AddressMatch,
  type FilterPlan,
  isEmpty,
  KUBE_PROXY_MARK,
  type PlannedRules,
  PURPOSES,
  type Purpose,
  type Rule,
} from './rules.ts'

/** flannel's names. */
export const TABLES = {
  inet: { family: 'ip', name: 'flannel-ipv4' },
  inet6: { family: 'ip6', name: 'flannel-ipv6' },
} as const satisfies Record<Family, unknown>

interface Chain {
  readonly name: string
  readonly type: string
  readonly hook: string
  readonly priority: number
  readonly comment: string
}

/** The priorities are `srcnat` and `filter`. */
const CHAINS = {
  masquerade: {
    name: 'postrtg',
    type: 'nat',
    hook: 'postrouting',
    priority: 100,
    comment: 'chain to manage traffic masquerading by flannel',
  },
  forward: {
    name: 'forward',
    type: 'filter',
    hook: 'forward',
    priority: 0,
    comment: 'chain to accept flannel traffic',
  },
} as const satisfies Record<Purpose, Chain>

/** What `nft -j list table` gives of a table, without what does not matter: handles, comments, the order of chains. */
export interface ListedTable {
  readonly chains: ReadonlyMap<string, ListedChain>
  /** Whatever else a table may have, which ours has not: flags (dormant), sets, maps, named objects. */
  readonly other: readonly unknown[]
}

interface ListedChain {
  readonly type: unknown
  readonly hook: unknown
  readonly prio: unknown
  readonly policy: unknown
  /** The expressions of each rule, in order. */
  readonly rules: readonly unknown[]
}

/** The text is what `nft -j list table` printed. */
export function parseTable(text: string): ListedTable {
  const { nftables } = JSON.parse(text, unwrapFlags) as { nftables: readonly Listed[] }
  const chains = new Map<string, ListedChain>()
  const other: unknown[] = []
  for (const item of nftables) {
    if (item.chain !== undefined) {
      const { name, type, hook, prio, policy } = item.chain
      chains.set(name, { type, hook, prio, policy, rules: rulesOf(nftables, name) })
    } else if (item.table?.flags !== undefined) other.push(item.table.flags)
    else if (item.metainfo === undefined && item.table === undefined && item.rule === undefined)
      other.push(item)
  }
  return { chains, other }
}

/** An object of the listing: one of these is there, or something else that a table can hold. */
interface Listed {
  readonly metainfo?: unknown
  readonly table?: { readonly flags?: unknown }
  readonly chain?: { readonly name: string } & Omit<ListedChain, 'rules'>
  readonly rule?: { readonly chain: string; readonly expr: unknown }
}

function rulesOf(items: readonly Listed[], chain: string): readonly unknown[] {
  return items.flatMap(({ rule }) => (rule?.chain === chain ? [rule.expr] : []))
}

/** One flag is a word in some versions, and a list of one word in others. */
function unwrapFlags(key: string, value: unknown): unknown {
  return key === 'flags' && Array.isArray(value) && value.length === 1 ? value[0] : value
}

/** The script is a transaction for `nft`. `actual` is undefined when there is no table. */
export function planTransaction(
  family: Family,
  planned: PlannedRules,
  actual: ListedTable | undefined,
): FilterPlan {
  const why = isEmpty(planned) ? actual && 'the table was not wanted' : differs(family, planned, actual)
  if (why === undefined) return { script: '', changes: [] }
  const table = `${TABLES[family].family} ${TABLES[family].name}`
  // Adding what may be there makes the deletion right in any case.
  const lines = [`add table ${table}`, `delete table ${table}`]
  if (!isEmpty(planned)) lines.push(...formatTable(family, planned))
  return { script: lines.join('\n'), changes: [{ family, chain: TABLES[family].name, why }] }
}

function differs(family: Family, planned: PlannedRules, actual: ListedTable | undefined): string | undefined {
  if (actual === undefined) return 'the table was missing'
  const wanted = wantedChains(family, planned)
  const names = new Set([...wanted.keys(), ...actual.chains.keys()])
  const wrong = [...names].filter((name) => !isDeepStrictEqual(wanted.get(name), actual.chains.get(name)))
  if (wrong.length > 0) return `the chains differed: ${wrong.join(', ')}`
  return actual.other.length > 0 ? 'the table had more than chains' : undefined
}

function wantedChains(family: Family, planned: PlannedRules): Map<string, ListedChain> {
  const chains = new Map<string, ListedChain>()
  for (const purpose of PURPOSES) {
    const { name, type, hook, priority } = CHAINS[purpose]
    const rules = planned[purpose].map((rule) => encodeRule(rule, TABLES[family].family))
    if (rules.length > 0) chains.set(name, { type, hook, prio: priority, policy: 'accept', rules })
  }
  return chains
}

function formatTable(family: Family, planned: PlannedRules): readonly string[] {
  const { family: protocol, name: table } = TABLES[family]
  const chains = PURPOSES.filter((purpose) => planned[purpose].length > 0).flatMap((purpose) => {
    const { name, type, hook, priority, comment } = CHAINS[purpose]
    return [
      `  chain ${name} {`,
      `    comment "${comment}"`,
      `    type ${type} hook ${hook} priority ${priority}; policy accept;`,
      ...planned[purpose].map((rule) => `    ${formatRule(rule, protocol)}`),
      '  }',
    ]
  })
  return [`table ${protocol} ${table} {`, `  comment "rules for ${table}"`, ...chains, '}']
}

type Protocol = (typeof TABLES)[Family]['family']

function formatRule({ marked, source, destination, verdict }: Rule, protocol: Protocol): string {
  const words: string[] = []
  if (marked) words.push(`meta mark & ${KUBE_PROXY_MARK} == ${KUBE_PROXY_MARK}`)
  if (source) words.push(formatMatch(`${protocol} saddr`, source))
  if (destination) words.push(formatMatch(`${protocol} daddr`, destination))
  return [...words, verdict].join(' ')
}

function formatMatch(field: string, { prefix, negated }: AddressMatch): string {
  return `${field} ${negated ? '!= ' : ''}${prefix}`
}

/** The rule as nft lists it. */
function encodeRule({ marked, source, destination, verdict }: Rule, protocol: Protocol): readonly unknown[] {
  const expressions: unknown[] = []
  if (marked) {
    const left = { '&': [{ meta: { key: 'mark' } }, KUBE_PROXY_MARK] }
    expressions.push({ match: { op: '==', left, right: KUBE_PROXY_MARK } })
  }
  if (source) expressions.push(encodeMatch(protocol, 'saddr', source))
  if (destination) expressions.push(encodeMatch(protocol, 'daddr', destination))
  return [...expressions, VERDICTS[verdict]]
}

const VERDICTS = {
  return: { return: null },
  accept: { accept: null },
  masquerade: { masquerade: null },
  'masquerade fully-random': { masquerade: { flags: 'fully-random' } },
} as const satisfies Record<Rule['verdict'], unknown>

function encodeMatch(protocol: Protocol, field: string, { prefix, negated }: AddressMatch): unknown {
  const right = { prefix: { addr: prefixBase(prefix), len: prefixLength(prefix) } }
  return { match: { op: negated ? '!=' : '==', left: { payload: { protocol, field } }, right } }
}
