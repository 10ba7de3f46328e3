/**
 * The rules in nftables: one `nft -j list table` to read, and only if something differs one transaction to write. The
 * transaction is an argument: it is small, there is no file to clean up, and not every nft reads the socket that Node
 * gives a program as its standard input.
 */

import type { Family } from '../address/ip.ts'
import { CommandError, run } from './command.ts'
import { bring, type Firewall, forEachFamily, type Outcome, planSupported } from './firewall.ts'
import { type ListedTable, parseTable, planTransaction, TABLES } from './nftables-rules.ts'
import { type FirewallRules, isEmpty, NO_RULES, type PlannedRules } from './rules.ts'

export interface NftablesOptions {
  /** Path of a network namespace; undefined for the process's own. */
  readonly netns?: string | undefined
}

export class Nftables implements Firewall {
  readonly #netns: string | undefined
  /** The families in which this kernel and this nft can masquerade from random ports. */
  readonly #randomFully = new Set<Family>()

  constructor({ netns }: NftablesOptions = {}) {
    this.#netns = netns
  }

  async ensure(rules: FirewallRules): Promise<Outcome> {
    return await forEachFamily(async (family) => {
      const planned = await planSupported(rules, family, (wanted) =>
        this.#supportsRandomFully(family, wanted),
      )
      return await bring(
        async () => planTransaction(family, planned, await this.#read(family, planned)),
        async (script) => {
          await run(this.#netns, 'nft', [script])
        },
      )
    })
  }

  async remove(): Promise<Outcome> {
    return await this.ensure(NO_RULES)
  }

  /** Undefined when there is no table. For a family without rules, a table that cannot be read is none. */
  async #read(family: Family, planned: PlannedRules): Promise<ListedTable | undefined> {
    const { family: protocol, name } = TABLES[family]
    try {
      return parseTable(await run(this.#netns, 'nft', ['-j', 'list', 'table', protocol, name]))
    } catch (error) {
      if (!(error instanceof CommandError)) throw error
      if (isEmpty(planned) || error.message.includes('No such file or directory')) return undefined
      throw error
    }
  }

  /** Tried with a transaction that is checked and not made. */
  async #supportsRandomFully(family: Family, wanted: PlannedRules): Promise<boolean> {
    if (!this.#randomFully.has(family)) {
      const { script } = planTransaction(family, wanted, undefined)
      const checked = await run(this.#netns, 'nft', ['--check', script]).catch(() => undefined)
      if (checked !== undefined) this.#randomFully.add(family)
    }
    return this.#randomFully.has(family)
  }
}
