/** Arabic. A string that is missing here is said in English. */
export default {
  title: 'محادثة', open: 'فتح المحادثة', close: 'إغلاق المحادثة', newChat: 'محادثة جديدة', greeting: 'كيف يمكنني المساعدة؟', placeholder: 'اكتب رسالة',
  send: 'إرسال', stop: 'إيقاف', attach: 'إضافة ملفات', remove: 'إزالة {name}', log: 'المحادثة', assistant: 'المساعد', you: 'أنت', earlier: 'الرسائل السابقة',
  toEnd: 'الانتقال إلى النهاية', chats: 'محادثاتك', untitled: 'محادثة', rename: 'إعادة التسمية', save: 'حفظ', connecting: 'جارٍ الاتصال…',
  reconnecting: 'انقطع الاتصال. جارٍ إعادة المحاولة…', signedOut: 'انتهت صلاحية تسجيل الدخول. سجّل الدخول مجددًا للمتابعة.', refused: 'هذه المحادثة غير متاحة في هذه الصفحة.',
  working: 'قيد التنفيذ…', tool: 'قيد التنفيذ: {name}', toolDone: 'تم: {name}', toolFailed: 'لم ينجح: {name}', reasoning: 'أفكار', sources: 'المصادر',
  stopped: 'أوقفت هذه الإجابة.', retry: 'حاول مجددًا', edit: 'تعديل', notSent: 'لم تُرسل بعد. تُرسل عند عودة الاتصال.', approval: 'موافقتك مطلوبة', approve: 'موافقة',
  reject: 'رفض', approved: 'لقد وافقت.', rejected: 'لقد رفضت.', settled: 'تمت الإجابة أو انتهى الانتظار.', form: 'بعض المعلومات', submit: 'إرسال', skip: 'تخطٍّ',
  submitted: 'شكرًا.', skipped: 'تم التخطي.', name: 'الاسم', email: 'البريد الإلكتروني', phone: 'الهاتف', other: 'غير ذلك', optional: 'اختياري', otp: 'تأكيد هويتك',
  otpSent: 'أُرسل رمز إلى {to}.', code: 'الرمز', verify: 'تحقّق', verified: 'تم التحقق. تُرسل رسالتك مجددًا.', human: 'ينبغي أن يطّلع شخص على هذا.',
  copy: 'نسخ', copied: 'تم النسخ', copyFailed: 'تعذّر النسخ', unread: '{count} غير مقروءة',
  AGENT_ERROR: 'تعذّر إكمال الإجابة. حاول مجددًا.', INTERNAL_ERROR: 'حدث خطأ. حاول مجددًا.',
};
