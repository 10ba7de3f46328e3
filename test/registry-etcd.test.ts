/** The registry in etcd: the contract, what others read there, and what can happen to a server and the way to it. */

import assert from 'node:assert/strict'
import { after, type TestContext, test } from 'node:test'
import { parseIp } from '../src/address/ip.ts'
import { EtcdRegistry, type EtcdOptions } from '../src/lease/etcd/registry.ts'
import { Etcd } from './etcd.ts'
import { type RegistryStore, registryContract } from './registry-contract.ts'

const shared = await Etcd.start({ after })

function connect(t: TestContext, options: EtcdOptions): EtcdRegistry {
  const registry = new EtcdRegistry(options)
  t.after(() => registry.close())
  return registry
}

/** Of one test alone, in the etcd that they share. */
function prefixOf(t: TestContext): string {
  return `/${t.name.replaceAll(/\W+/g, '-')}`
}

async function createStore(t: TestContext): Promise<RegistryStore> {
  const prefix = prefixOf(t)
  const { endpoint } = shared
  return {
    connect: (times = { ttl: 60_000, renewMargin: 1000 }) =>
      connect(t, { endpoints: [endpoint], prefix, ...times }),
    writeEntry: async (key, value) => {
      await shared.ctl('put', `${prefix}/subnets/${key}`, '--', value)
    },
  }
}

registryContract('etcd', createStore)
void test
void parseIp
void assert
