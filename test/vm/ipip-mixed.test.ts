/** The ipip backend with whole agents, and a host as flanneld leaves it. */

import { describeBackend } from '../e2e/backends.ts'

describeBackend('ipip')
