/**
 * The rules in iptables: read with one `iptables-save`, and only if something differs written with one
 * `iptables-restore`, which changes a table in one step. `iptables` is whichever variant the machine uses.
 */

import type { Family } from '../address/ip.ts'
import { CommandError, run } from './command.ts'
import { bring, type Firewall, forEachFamily, type Outcome, planSupported } from './firewall.ts'
import { parseSave, planRestore } from './iptables-rules.ts'
import { type FilterPlan, type FirewallRules, isEmpty, NO_RULES, type PlannedRules } from './rules.ts'

export interface IptablesOptions {
  /** `iptables-legacy` or `iptables-nft` where it has to be that one. */
  readonly program?: string
  /** Path of a network namespace; undefined for the process's own. */
  readonly netns?: string | undefined
}

/** How long another holder of the xtables lock is waited for; then the turn fails, and the next one tries again. Seconds. */
const LOCK_WAIT = 5

export class Iptables implements Firewall {
  readonly #program: string
  readonly #netns: string | undefined
  #randomFully: boolean | undefined

  constructor({ program = 'iptables', netns }: IptablesOptions) {
    this.#program = program
    this.#netns = netns
  }

  async ensure(rules: FirewallRules): Promise<Outcome> {
    return await forEachFamily(async (family) => {
      const planned = await planSupported(rules, family, () => this.#supportsRandomFully())
      return await bring(
        () => this.#plan(family, planned),
        async (script) => {
          await this.#run(family, '-restore', ['--noflush', '-w', String(LOCK_WAIT)], script)
        },
      )
    })
  }

  async remove(): Promise<Outcome> {
    return await this.ensure(NO_RULES)
  }

  /** For a family without rules, a table that cannot be read is a table without our rules. */
  async #plan(family: Family, planned: PlannedRules): Promise<FilterPlan> {
    const text = await this.#run(family, '-save', []).catch((error: unknown) => {
      if (error instanceof CommandError && isEmpty(planned)) return ''
      throw error
    })
    return planRestore(family, planned, parseSave(text))
  }

  async #supportsRandomFully(): Promise<boolean> {
    this.#randomFully ??= hasRandomFully(await this.#run('inet', '', ['--version']))
    return this.#randomFully
  }

  #run(
    family: Family,
    suffix: '' | '-save' | '-restore',
    args: readonly string[],
    input = '',
  ): Promise<string> {
    const program = family === 'inet' ? this.#program : this.#program.replace(/ip(?=tables)/, 'ip6')
    return run(this.#netns, `${program}${suffix}`, args, input)
  }
}

/** `--random-fully` came with 1.6.2. `version` is what `iptables --version` prints: `iptables v1.8.9 (nf_tables)`. */
export function hasRandomFully(version: string): boolean {
  const [major = 0, minor = 0, patch = 0] = (/v(\d+)\.(\d+)\.(\d+)/.exec(version) ?? []).slice(1).map(Number)
  return major > 1 || (major === 1 && (minor > 6 || (minor === 6 && patch >= 2)))
}

/** The variant that such a program is not; before 1.8 there was the legacy one only, without saying so. */
export async function otherVariant({ program = 'iptables', netns }: IptablesOptions): Promise<string> {
  const version = await run(netns, program, ['--version'])
  return version.includes('nf_tables') ? 'iptables-legacy' : 'iptables-nft'
}
