/** The two modes, and what else may hold rules of ours from before: the other mode, flannel, another iptables. */

import { CommandError } from './command.ts'
import type { Firewall } from './firewall.ts'
import { Iptables, type IptablesOptions, otherVariant } from './iptables.ts'
import { Nftables } from './nftables.ts'

/** `EnableNFTables` in the network config. */
export type FirewallMode = 'iptables' | 'nftables'

export interface OpenFirewall {
  readonly firewall: Firewall
  /** For `keep`. They know nothing of `firewall`'s own rules. */
  readonly leftovers: readonly Firewall[]
}

export async function openFirewall(mode: FirewallMode, options: IptablesOptions): Promise<OpenFirewall> {
  const { netns } = options
  const nftables = new Nftables({ netns })
  switch (mode) {
    case 'iptables': {
      const program = await otherVariant(options).catch(absent)
      const others = program === undefined ? [] : [new Iptables({ netns, program })]
      return { firewall: new Iptables(options), leftovers: [nftables, ...others] }
    }
    case 'nftables': {
      const programs = [options.program ?? 'iptables', 'iptables-nft', 'iptables-legacy']
      const leftovers = programs.map((program) => new Iptables({ netns, program }))
      return { firewall: nftables, leftovers }
    }
    default:
      return mode satisfies never
  }
}

/** Without iptables there are no leftovers of it, and its firewall will say that it is missing. */
function absent(error: unknown): undefined {
  if (error instanceof CommandError) return undefined
  throw error
}
