/**
 * The rules as iptables says them: chain by chain, in the text of `iptables-save`. A rule is compared by that text,
 * because it is what the filter itself makes of the rule.
 *
 * What is ours: the two chains, by name, and in the built-in chains every rule that carries flannel's comment. Before
 * v0.21 flannel wrote all its rules there, and the rules of another subnet or network look like that, too.
 */

import type { Family } from '../address/ip.ts'
import {
  type AddressMatch,
  type Change,
  type FilterPlan,
  KUBE_PROXY_MARK,
  type PlannedRules,
  PURPOSES,
  type Purpose,
  type Rule,
} from './rules.ts'

/** Table → chain → its rules in order, as `iptables-save` prints them after `-A CHAIN `. */
export type SavedRules = ReadonlyMap<string, ReadonlyMap<string, readonly string[]>>

/** flannel's names. The jump stands in `parent`, a built-in chain. */
interface Chain {
  readonly table: string
  readonly parent: string
  readonly name: string
  readonly comment: string
}

const CHAINS = {
  masquerade: { table: 'nat', parent: 'POSTROUTING', name: 'FLANNEL-POSTRTG', comment: 'flanneld masq' },
  forward: { table: 'filter', parent: 'FORWARD', name: 'FLANNEL-FWD', comment: 'flanneld forward' },
} as const satisfies Record<Purpose, Chain>

export function parseSave(text: string): SavedRules {
  const tables = new Map<string, Map<string, string[]>>()
  let chains = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const [, mark, word = '', rest = ''] = /^(\*|:|-A )(\S+) ?(.*)$/.exec(line) ?? []
    if (mark === '*') tables.set(word, (chains = new Map()))
    else if (mark === ':') chains.set(word, [])
    else if (mark !== undefined) chains.get(word)?.push(rest)
  }
  return tables
}

/** The script is the input of `iptables-restore --noflush`. */
export function planRestore(family: Family, planned: PlannedRules, saved: SavedRules): FilterPlan {
  const lines: string[] = []
  const changes: Change[] = []
  for (const purpose of PURPOSES) {
    const chain = CHAINS[purpose]
    const rules = planned[purpose].map((rule) => formatRule(rule, chain.comment))
    const steps = planChain(chain, rules, saved.get(chain.table) ?? new Map())
    if (steps.length === 0) continue
    lines.push(`*${chain.table}`, ...steps.flatMap((step) => step.lines), 'COMMIT')
    const why = steps.map((step) => step.why).join(', ')
    changes.push({ family, chain: `${chain.table} ${chain.name}`, why })
  }
  return { script: lines.map((line) => `${line}\n`).join(''), changes }
}

/** Something that is not as planned, and the lines that mend it. */
interface Step {
  readonly why: string
  readonly lines: readonly string[]
}

/**
 * The chain is written before the jump to it and removed after it. A chain that somebody else jumps to is emptied and
 * stays, because that jump is not ours.
 */
function planChain(
  chain: Chain,
  rules: readonly string[],
  saved: ReadonlyMap<string, readonly string[]>,
): Step[] {
  const { name, parent, comment } = chain
  const wanted = rules.length > 0
  const actual = saved.get(name)
  const jump = `${formatComment(comment)} -j ${name}`
  const ours = (saved.get(parent) ?? []).filter((rule) => rule.includes(formatComment(comment)))
  const jumps = ours.filter((rule) => rule === jump)
  const surplus = [...ours.filter((rule) => rule !== jump), ...jumps.slice(wanted ? 1 : 0)]
  const steps: Step[] = []
  if (wanted && !isSame(rules, actual)) {
    const why = actual === undefined ? 'the chain was missing' : 'the rules differed'
    // The declaration empties a chain that is there.
    steps.push({ why, lines: [`:${name} - [0:0]`, ...rules.map((rule) => `-A ${name} ${rule}`)] })
  }
  if (wanted && jumps.length === 0) {
    steps.push({ why: `the jump in ${parent} was missing`, lines: [`-A ${parent} ${jump}`] })
  }
  if (surplus.length > 0) {
    const why = `surplus rules in ${parent}: ${surplus.length}`
    steps.push({ why, lines: surplus.map((rule) => `-D ${parent} ${rule}`) })
  }
  if (!wanted && actual !== undefined) {
    const why = 'the chain was not wanted'
    if (!isHeld(chain, saved)) steps.push({ why, lines: [`-F ${name}`, `-X ${name}`] })
    else if (actual.length > 0) steps.push({ why, lines: [`-F ${name}`] })
  }
  return steps
}

/** Whether a rule of somebody else jumps to the chain. */
function isHeld({ name, parent, comment }: Chain, saved: ReadonlyMap<string, readonly string[]>): boolean {
  const others = [...saved].filter(([chain]) => chain !== name)
  return others.some(([chain, rules]) =>
    rules.some((rule) => {
      const isOurs = chain === parent && rule.includes(formatComment(comment))
      return !isOurs && / -[jg] (\S+)/.exec(` ${rule}`)?.[1] === name
    }),
  )
}

function formatRule({ marked, source, destination, verdict }: Rule, comment: string): string {
  const words = [formatMatch('-s', source), formatMatch('-d', destination)]
  if (marked) {
    const mark = `0x${KUBE_PROXY_MARK.toString(16)}`
    words.push(`-m mark --mark ${mark}/${mark}`)
  }
  words.push(formatComment(comment), `-j ${TARGETS[verdict]}`)
  return words.filter((word) => word !== '').join(' ')
}

const TARGETS = {
  return: 'RETURN',
  accept: 'ACCEPT',
  masquerade: 'MASQUERADE',
  'masquerade fully-random': 'MASQUERADE --random-fully',
} as const satisfies Record<Rule['verdict'], string>

function formatMatch(option: '-s' | '-d', match: AddressMatch | undefined): string {
  return match === undefined ? '' : `${match.negated ? '! ' : ''}${option} ${match.prefix}`
}

function formatComment(comment: string): string {
  return `-m comment --comment "${comment}"`
}

function isSame(a: readonly string[], b: readonly string[] | undefined): boolean {
  return a.length === b?.length && a.every((rule, i) => rule === b[i])
}
