/** Whether what the agent joined with still holds of this host. */

import { isDeepStrictEqual } from 'node:util'
import { FAMILIES, type Ip, isLinkLocal } from '../address/ip.ts'
import { FAMILY_NAMES, type HostFacts } from '../backend/backend.ts'
import { type HostQuestion, readInterfaces, watchInterfaces } from '../kernel/host.ts'
import { HostError } from '../kernel/selection.ts'

/** `why` is for people. */
export type HostEvent =
  | { readonly kind: 'same' }
  | { readonly kind: 'unusable'; readonly why: string }
  | { readonly kind: 'changed'; readonly why: string }

/**
 * Looks at once, and again whenever something may have changed.
 * @param joined The facts that hold so far. Of the underlay's routes they count if the question asks for them.
 */
export async function* followHost(
  question: HostQuestion,
  joined: HostFacts,
  signal: AbortSignal,
): AsyncGenerator<HostEvent, void> {
  for await (const _ of watchInterfaces(question, signal)) {
    try {
      yield compare(joined, await readInterfaces(question), question.underlay)
    } catch (error) {
      if (!(error instanceof HostError)) throw error
      yield { kind: 'unusable', why: error.message }
    }
  }
}

/** The facts that plans are made of: links come and go, and are the kernel's to follow. */
export function compare(joined: HostFacts, now: HostFacts, withUnderlay: boolean): HostEvent {
  const lost = FAMILIES.find((family) => hasLost(joined.publicIps[family], now.publicIps[family]))
  // An interface that goes down keeps none, and comes up with this one first: nothing to send peers to.
  if (lost !== undefined) {
    const why = `${now.external.name} has a link-local ${FAMILY_NAMES[lost]} address only`
    return { kind: 'unusable', why }
  }
  const factsOf = ({ external, publicIps }: HostFacts) => ({ external, publicIps })
  if (!isDeepStrictEqual(factsOf(now), factsOf(joined))) {
    return { kind: 'changed', why: 'the external interface changed' }
  }
  if (withUnderlay && !isDeepStrictEqual(now.underlay, joined.underlay)) {
    return { kind: 'changed', why: 'the routes to other hosts changed' }
  }
  return { kind: 'same' }
}

function hasLost(before: Ip | undefined, now: Ip | undefined): boolean {
  return before !== undefined && now !== undefined && !isLinkLocal(before) && isLinkLocal(now)
}
